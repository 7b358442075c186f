"""Where things stand, read from the registry alone: no torch, so it answers at once."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from continual.domain.adapters import CHAMPION, Task
from continual.domain.drift import DriftReport
from continual.domain.errors import NotFoundError
from flows.commands.terminal import show_choice, show_gate, show_versions
from flows.workplace import Workplace
from registry import Update

MOST_UPDATES = 1000
"""Updates that are read back, the newest first."""


def overview(workplace: Workplace) -> dict[str, Any]:
    """Sites with sample counts and last verdicts, and adapters with champions, as plain JSON."""
    newest = {update.site: update for update in reversed(workplace.registry.updates.list(limit=MOST_UPDATES))}
    return {
        "workspace": str(workplace.settings.workspace),
        "sites": [_site_row(workplace, site, newest.get(site)) for site in workplace.registry.samples.sites()],
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


def latest_report(workplace: Workplace, site: str) -> DriftReport:
    """The last drift report of a site; NotFoundError where it was never looked at."""
    report = workplace.registry.drift.latest(site)
    if report is None:
        known = ", ".join(workplace.registry.samples.sites()) or "none yet"
        raise NotFoundError(f"no drift report for site {site!r}; known sites: {known}; the release site has none")
    return report


def report_record(report: DriftReport) -> dict[str, Any]:
    """A drift report as plain JSON."""
    return asdict(report)


def show_overview(console: Console, found: dict[str, Any]) -> None:
    """Sites and adapters as two tables."""
    sites = Table(title="Sites", title_justify="left")
    masks = ["masks"] if any(row["masks"] for row in found["sites"]) else []
    held = ["held"] if any(row["held"] for row in found["sites"]) else []
    shown = ["site", "samples", "labelled", *masks, "quarantined", *held, "verdict", "action"]
    for name in shown:
        sites.add_column({"verdict": "last verdict"}.get(name, name), no_wrap=name == "verdict")
    for row in found["sites"]:
        done = row | {"action": f"{row['action']}: {row['since']}"} if row["since"] else row
        sites.add_row(*(str(done[name]) for name in shown))
    console.print(sites)
    show_adapters(console, found["adapters"])


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


def _site_row(workplace: Workplace, site: str, update: Update | None) -> dict[str, Any]:
    samples = workplace.registry.samples.list(site, with_held=True)
    report = workplace.registry.drift.latest(site)
    return {
        "site": site,
        "samples": len(samples),
        "labelled": sum(sample.labelled_for(Task.CLASSIFICATION) for sample in samples),
        "masks": sum(sample.labelled_for(Task.SEGMENTATION) for sample in samples),
        "quarantined": len(workplace.registry.samples.quarantine(site)),
        "held": workplace.registry.holds.samples_held(site),
        "verdict": report.verdict.value if report else "-",
        "action": report.action.value if report else "-",
        "since": _since(report, update),
    }


def _since(report: DriftReport | None, update: Update | None) -> str | None:
    """What became of the action: the update that began after the look; None where there is none."""
    if report is None or update is None or not update.answers(report.created_at):
        return None
    return update.outcome if update.version is None else f"version {update.version} {update.outcome}"


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
