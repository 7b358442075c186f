"""Tables for people: the same facts as the JSON, fitted to a terminal."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from continual.domain.adapters import AdapterVersion
from continual.domain.drift import DriftReport, EvidenceOverTime, RollingComparison, RootCause, Signal
from registry import Hold

MOST_SHIFTS = 5
"""Properties of a root-cause card in a terminal."""


def print_json(console: Console, value: Any) -> None:
    """Plain JSON on standard output, for machines."""
    console.out(json.dumps(value, indent=2, default=str), highlight=False)


def show_matrix(console: Console, title: str, result: Mapping[str, Any], rows: Sequence[str]) -> None:
    """The result matrix with its derived scores."""
    table = Table(title=title, title_justify="left")
    table.add_column("version")
    for site in result["sites"]:
        table.add_column(site, justify="right")
    table.add_column("mean", justify="right")
    for name, row in zip(rows, result["result_matrix"], strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in row), f"{sum(row) / len(row):.3f}")
    console.print(table)
    console.print(
        f"ACC {result['acc']:.3f}   BWT {result['bwt']:+.3f}   FWT {result['fwt']:+.3f}   "
        f"worst site {result['worst_site']:.3f}   worst drop {result['worst_site_drop']:.3f}",
        highlight=False,
    )


def show_result(console: Console, result: Mapping[str, Any]) -> None:
    """Matrix, references, drift verdicts, versions: what `result.json` holds."""
    names = [f"{version['number']} {version['strategy']} ({version['state']})" for version in result["versions"]]
    metric = str(result["metric"]).replace("_", " ")
    if result["sites"]:
        show_matrix(console, f"Result matrix: {metric} on frozen test splits", result, names)
    for strategy, reference in result.get("references", {}).items():
        rows = [f"after {site}" for site in reference["sites"]]
        show_matrix(console, f"Reference: {strategy}", reference, rows)
    table = Table(title="Sites", title_justify="left")
    for heading in ("site", "drift verdict", "forgetting"):
        table.add_column(heading)
    for site in result["sites"]:
        lost = result["forgetting"].get(site, 0.0)
        table.add_row(site, result["drift"].get(site, "release site"), f"{lost:+.3f}")
    for site in result["sites_without_labelled_test"]:
        table.add_row(site, result["drift"].get(site, "not looked at"), "no labelled test image")
    console.print(table)
    total = sum(result.get("seconds", {}).values())
    console.print(
        f"Champion: {result['adapter']} version {result['champion']}   ({total:.0f} s in all)", highlight=False
    )


def show_versions(console: Console, versions: Sequence[AdapterVersion], champion: int | None) -> None:
    """One line per version, the champion marked."""
    table = Table(title_justify="left")
    for heading in ("version", "state", "strategy", "learnt last", "mean", "created", "digest"):
        table.add_column(heading)
    for version in versions:
        mark = " <- champion" if version.number == champion else ""
        mean = sum(version.metrics.values()) / max(len(version.metrics), 1)
        table.add_row(
            f"{version.number}{mark}",
            version.state.value,
            version.strategy,
            version.trained_on[-1],
            f"{mean:.3f}",
            version.created_at.strftime("%Y-%m-%d %H:%M"),
            version.digest[:12],
        )
    console.print(table)


def show_gate(console: Console, version: AdapterVersion) -> None:
    """The gate's finding for each site."""
    if version.gate is None:
        return
    table = Table(title=f"Gate of version {version.number}", title_justify="left")
    for heading in ("site", "role", "difference", "lower bound", "limit", "passed"):
        table.add_column(heading)
    for finding in version.gate.findings:
        table.add_row(
            finding.site,
            finding.role,
            f"{finding.difference:+.3f}",
            f"{finding.lower_bound:+.3f}",
            f"{finding.limit:+.3f}",
            "yes" if finding.passed else "NO",
        )
    console.print(table)


def show_choice(console: Console, version: AdapterVersion) -> None:
    """How the version was chosen among its candidates; nothing where its strategy was named."""
    choice = version.record.get("choice")
    if not choice:
        return
    console.print(f"Choice: {choice['reason']}", highlight=False)
    table = Table(title="Candidates, on validation splits", title_justify="left")
    for heading in ("strategy", "mean", "worst change", "at", "CPU s", ""):
        table.add_column(heading)
    for row in choice["candidates"]:
        change = row["worst_change"]
        table.add_row(
            row["strategy"],
            f"{row['mean']:.3f}",
            "-" if change is None else f"{change:+.3f}",
            row["worst_site"] or "-",
            f"{row['cpu_seconds']:.1f}",
            "<- chosen" if row["strategy"] == choice["chosen"] else "",
        )
    if choice["candidates"]:
        console.print(table)


def show_report(console: Console, report: DriftReport) -> None:
    """A drift report: the sentence first, then the signals."""
    console.print(f"[bold]{report.site}[/bold]: {report.verdict.value} -> {report.action.value}", highlight=False)
    console.print(report.reason, highlight=False)
    if report.root_cause is not None:
        _show_cause(console, report.root_cause)
    if report.signals:
        _show_signals(console, report.signals)
    if report.over_time is not None:
        _show_evidence(console, report.over_time)
    if report.rolling is not None:
        _show_rolling(console, report.rolling)


def _show_signals(console: Console, signals: Sequence[Signal]) -> None:
    """Every test, family by family."""
    table = Table(title_justify="left")
    for heading in ("signal", "score", "adjusted p", "e", "alarm"):
        table.add_column(heading, no_wrap=heading == "signal")
    for family, found in groupby(signals, key=lambda signal: signal.family):
        table.add_section()
        table.add_row(f"[bold]{family.value.replace('_', ' ')}[/bold]")
        for signal in found:
            table.add_row(
                escape(signal.name),
                f"{signal.score:.4g}",
                f"{signal.adjusted_p_value:.3g}",
                f"{signal.e_value:.3g}",
                "yes" if signal.alarm else "",
            )
    console.print(table)


def _show_cause(console: Console, cause: RootCause) -> None:
    """Which tag, which pixel statistic, since when."""
    console.print(f"Root cause: {cause.said}", highlight=False, markup=False)
    if not cause.shifts:
        return
    table = Table(title_justify="left")
    for heading in ("property", "usual", "now", "moved", "since"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("property", "moved"))
    for shift in cause.shifts[:MOST_SHIFTS]:
        date = "" if shift.since_date is None else f" {shift.since_date:%Y-%m-%d}"
        since = "-" if shift.since_window is None else f"window {shift.since_window}{date}"
        row = (shift.name, shift.usual, shift.now, f"{100 * shift.score:.0f} %", since)
        table.add_row(*map(escape, row))
    console.print(table)


def show_looks(console: Console, reports: Sequence[DriftReport]) -> None:
    """One line per look."""
    table = Table(title_justify="left")
    for heading in ("#", "looked at", "site", "subjects", "evidence", "verdict"):
        table.add_column(heading, no_wrap=heading != "site")
    for report in reports:
        over_time = report.over_time
        table.add_row(
            str(report.id),
            "" if report.created_at is None else report.created_at.strftime("%Y-%m-%d"),
            report.site,
            f"{report.current_subjects} / {report.reference_subjects}",
            "-" if over_time is None else f"{over_time.value:.3g} of {over_time.threshold:g}",
            report.verdict.value,
        )
    console.print(table)


def show_holds(console: Console, holds: Sequence[Hold]) -> None:
    """One line per held batch, and how to release one."""
    if not holds:
        console.print("no batch was ever held")
        return
    table = Table(title_justify="left")
    for heading in ("batch", "site", "images", "held", "released"):
        table.add_column(heading)
    for hold in holds:
        released = "" if hold.released_at is None else hold.released_at.strftime("%Y-%m-%d")
        held = hold.held_at.strftime("%Y-%m-%d")
        table.add_row(str(hold.batch), hold.site, str(hold.samples), held, released)
    console.print(table)
    for reason in dict.fromkeys(hold.reason for hold in holds if hold.released_at is None):
        console.print(reason, highlight=False)
    console.print('Next:  mend the scanner or the export; or  continual holds release BATCH --reason "..."')


def _show_evidence(console: Console, over_time: EvidenceOverTime) -> None:
    """Evidence since the promotion: what this window adds, and what all of them say."""
    said = f"Evidence since the promotion: {over_time.value:.3g}, called at {over_time.threshold:g}"
    console.print(said, highlight=False)
    table = Table(title_justify="left")
    for heading in ("family", "this window", f"all {over_time.windows}"):
        table.add_column(heading)
    for family, wealth in over_time.families.items():
        table.add_row(family, f"{over_time.e_values[family]:.3g}", f"{wealth:.3g}")
    console.print(table)


def _show_rolling(console: Console, rolling: RollingComparison) -> None:
    """Whether the site still changes: this window against the pool of earlier ones."""
    said = ", ".join(f"{family.replace('_', ' ')} {p_value:.3g}" for family, p_value in rolling.p_values.items())
    verb = "differs from" if rolling.differs else "is as in"
    console.print(
        f"Rolling reference: {verb} windows {rolling.first} to {rolling.last}, {rolling.subjects} subjects, at level "
        f"{rolling.level:g} (smallest adjusted p: {said or 'none could be tested'})",
        highlight=False,
    )
