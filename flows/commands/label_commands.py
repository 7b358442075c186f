"""The verbs of late labels: thin skins over what was predicted then. Heavy imports stay inside."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.command_options import HERE, Adapter, AsJson, Workspace, make_console, say_json, workplace_at

if TYPE_CHECKING:
    from rich.console import Console

    from continual.domain.predictions import Performance
    from flows.drift.late_labels import LabelReport
    from flows.workplace import Workplace

MOST_LISTED = 10


def label(
    manifest: Annotated[Path, typer.Option(help="CSV with digest,label or path,label[,site,labelled_at].")],
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="Judge this adapter's predictions; default: all.")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Take labels that come late: match them to samples, and to what each version predicted then."""
    with workplace_at(workspace) as workplace:
        from flows.drift.late_labels import take_labels

        report = take_labels(workplace, manifest, adapter)
        if as_json:
            say_json(report.as_record())
        else:
            _show_report(make_console(), report)


def performance(
    adapter: Adapter,
    workspace: Workspace = HERE,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="What was known then: 2026-03-01, or an ISO time; without a zone it is UTC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Balanced accuracy by version and by month of prediction, from the labels that have come since."""
    moment = _moment(as_of)
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.drift.late_labels import performance_over_time

        rows = performance_over_time(workplace, adapter, site, moment)
        if not rows:
            _check_site(workplace, adapter, site)
        if as_json:
            say_json([asdict(row) for row in rows])
        else:
            _show_rows(make_console(), rows)


def _check_site(workplace: "Workplace", adapter: str, site: str | None) -> None:
    """Raise NotFoundError for a site that neither images, predictions nor labels of predictions name."""
    from flows.workplace import check_site

    said = workplace.registry.predictions
    if site is not None and not said.list(adapter, site) and not said.labelled(adapter, site):
        check_site(workplace, site)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    from continual.domain.errors import SettingsError

    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingsError(f"--as-of is {text!r}; give a date or time like 2026-03-01 or 2026-03-01T12:00Z") from None


def _show_report(console: "Console", report: "LabelReport") -> None:
    console.print(
        f"{report.rows} rows: {report.new} new labels, {report.known} known before, {len(report.unknown)} of unknown "
        f"pictures, {len(report.quarantined)} quarantined",
        highlight=False,
    )
    for rows, what in ((report.unknown, "unknown"), (report.quarantined, "quarantined")):
        for each in rows[:MOST_LISTED]:
            console.print(f"row {each.row} {what}: {each.reason}", highlight=False, markup=False)
        if len(rows) > MOST_LISTED:
            console.print(f"... and {len(rows) - MOST_LISTED} more {what}; --json lists all", highlight=False)
    if report.other_classes:
        console.print(
            f"kept and not scored, no class of the version: {', '.join(report.other_classes)}",
            highlight=False,
            markup=False,
        )
    _show_rows(console, report.performance)


def _show_rows(console: "Console", rows: "Sequence[Performance]") -> None:
    from rich.table import Table

    if not rows:
        console.print("no prediction has a label yet")
        return
    table = Table(title="On predictions made then, with the labels that came", title_justify="left")
    for heading in ("adapter", "version", "at or in", "labelled", "subjects", "balanced accuracy", "not scored"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        interval = "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
        value = "-" if row.balanced_accuracy is None else f"{row.balanced_accuracy:.3f}{interval}"
        counts = (str(row.labelled), str(row.subjects), value, str(row.unscored or ""))
        table.add_row(row.adapter, str(row.version), row.month or row.site or "no site", *counts)
    console.print(table)
