"""Where things stand, read from the registry alone: no torch, so it answers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from continual.domain.adapters import CHAMPION
from continual.domain.drift import DriftReport
from continual.domain.errors import NotFoundError
from flows.commands.terminal import show_choice, show_gate, show_versions
from flows.workplace import Workplace
from registry import SampleCounts, Update

MOST_UPDATES = 1000
"""Updates that are read back, the newest first."""


def overview(workplace: Workplace) -> dict[str, Any]:
    """Sites with sample counts and each adapter's last verdict, and adapters with champions, as plain JSON."""
    updates = workplace.registry.updates.list(limit=MOST_UPDATES)
    newest = {(update.site, update.adapter): update for update in reversed(updates)}
    return {
        "workspace": str(workplace.settings.workspace),
        "sites": [
            row
            for site, counts in workplace.registry.samples.counts().items()
            for row in _site_rows(workplace, site, counts, newest)
        ],
        "adapters": adapter_rows(workplace),
    }


def adapter_rows(workplace: Workplace) -> list[dict[str, Any]]:
    """One row per adapter: champion, digest, number of versions, mean metric."""
    return [_adapter_row(workplace, name) for name in workplace.registry.adapters.names()]


def adapter_detail(workplace: Workplace, adapter: str) -> dict[str, Any]:
    """Versions, aliases and the champion's moves of one adapter, as plain JSON.

    Raises NotFoundError for an unknown adapter.
    """
    adapters = workplace.registry.adapters
    versions = adapters.list(adapter)
    if not versions:
        known = ", ".join(adapters.names()) or "none yet"
        raise NotFoundError(f"no adapter {adapter!r}; known: {known}")
    return {
        "adapter": adapter,
        "aliases": adapters.aliases(adapter),
        "versions": [asdict(version) for version in versions],
        "moves": [asdict(move) for move in adapters.history(adapter, CHAMPION)],
    }


def latest_report(workplace: Workplace, site: str, adapter: str | None = None) -> DriftReport:
    """The last drift report of a site, of one adapter or of all; NotFoundError where it was never looked at."""
    report = workplace.registry.drift.latest(site, adapter)
    if report is None:
        known = ", ".join(workplace.registry.samples.sites()) or "none yet"
        of = "" if adapter is None else f" of adapter {adapter!r}"
        raise NotFoundError(f"no drift report{of} for site {site!r}; known sites: {known}; the release site has none")
    return report


def report_record(report: DriftReport) -> dict[str, Any]:
    """A drift report as plain JSON."""
    return asdict(report)


def show_overview(console: Console, found: dict[str, Any]) -> None:
    """Sites and adapters as two tables; verdicts of more than one adapter have a third, for all in one is too wide."""
    rows = found["sites"]
    masks = ["masks"] if any(row["masks"] for row in rows) else []
    held = ["held"] if any(row["held"] for row in rows) else []
    counts, said = ["site", "samples", "labelled", *masks, "quarantined", *held], ["verdict", "action"]
    if len({row["adapter"] for row in rows if row["adapter"]}) > 1:
        once = {row["site"]: row for row in rows}
        console.print(_sites_table("Sites", list(once.values()), counts))
        console.print(_sites_table("Verdicts", rows, ["site", "adapter", *said]))
    else:
        console.print(_sites_table("Sites", rows, [*counts, *said]))
    show_adapters(console, found["adapters"])


def _sites_table(title: str, rows: Sequence[dict[str, Any]], shown: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in shown:
        table.add_column({"verdict": "last verdict"}.get(name, name), no_wrap=name == "verdict")
    for row in rows:
        done = row | {"action": f"{row['action']}: {row['since']}"} if row["since"] else row
        table.add_row(*(str(done[name] or "-") if name == "adapter" else str(done[name]) for name in shown))
    return table


def show_adapters(console: Console, rows: list[dict[str, Any]]) -> None:
    """One line per adapter."""
    table = Table(title="Adapters", title_justify="left")
    for heading in ("adapter", "champion", "versions", "mean", "digest"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row["adapter"],
            str(row["champion"] or "-"),
            str(row["versions"]),
            "-" if row["mean"] is None else f"{row['mean']:.3f}",
            (row["digest"] or "-")[:12],
        )
    console.print(table)


def show_adapter(console: Console, workplace: Workplace, adapter: str) -> None:
    """Versions, the newest version's choice and gate, and the champion's moves."""
    detail = adapter_detail(workplace, adapter)
    adapters = workplace.registry.adapters
    versions = adapters.list(adapter)
    show_versions(console, versions, detail["aliases"].get(CHAMPION))
    show_choice(console, versions[-1])
    show_gate(console, versions[-1])
    for move in adapters.history(adapter, CHAMPION):
        origin = move.from_version if move.from_version is not None else "-"
        when = move.moved_at.strftime("%Y-%m-%d %H:%M")
        console.print(f"{when}  {origin} -> {move.to_version}  {move.actor}: {move.reason}", highlight=False)


def _site_rows(
    workplace: Workplace, site: str, stored: SampleCounts, newest: Mapping[tuple[str, str], Update]
) -> list[dict[str, Any]]:
    """One row per adapter that looked at the site, one without an adapter's name where none did.

    `newest` is the last update by site and adapter.
    """
    counts = {
        "site": site,
        "samples": stored.samples,
        "labelled": stored.labelled,
        "masks": stored.masked,
        "quarantined": stored.quarantined,
        "held": workplace.registry.holds.samples_held(site),
    }
    in_service = workplace.registry.adapters.in_service
    return [
        {
            **counts,
            "verdict": report.verdict.value if report else "-",
            "action": report.action.value if report else "-",
            "since": _since(report, newest.get((site, report.adapter)), in_service(report.adapter)) if report else None,
            "adapter": report.adapter or None if report else None,
        }
        for report in _latest_of_each(workplace, site)
    ]


def _latest_of_each(workplace: Workplace, site: str) -> Sequence[DriftReport | None]:
    """Each adapter's last report on a site; where there is none, one that names no adapter, or None."""
    drift = workplace.registry.drift
    reports = [drift.latest(site, name) for name in workplace.registry.adapters.names()]
    return [report for report in reports if report is not None] or [drift.latest(site)]


def _since(report: DriftReport, update: Update | None, serving: frozenset[int]) -> str | None:
    """What became of the action: the adapter's update that began after the look; None where there is none.

    `serving` are the champion's number and those that it was learnt from.
    """
    if update is None or not update.answers(report.created_at):
        return None
    if update.version is None:
        return update.outcome
    gone = update.outcome == "accepted" and bool(serving) and update.version not in serving
    return f"version {update.version} {'rolled back' if gone else update.outcome}"


def _adapter_row(workplace: Workplace, name: str) -> dict[str, Any]:
    adapters = workplace.registry.adapters
    try:
        champion = adapters.current(name, CHAMPION)
    except NotFoundError:
        return {"adapter": name, "champion": None, "versions": len(adapters.list(name)), "mean": None, "digest": None}
    return {
        "adapter": name,
        "champion": champion.number,
        "versions": len(adapters.list(name)),
        "mean": sum(champion.metrics.values()) / max(len(champion.metrics), 1),
        "digest": champion.digest,
    }
