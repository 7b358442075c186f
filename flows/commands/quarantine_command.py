"""`continual quarantine`: what was held back at intake, and why. Heavy imports stay inside."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.command_options import HERE, AsJson, Workspace, make_console, say_json, workplace_at

if TYPE_CHECKING:
    from rich.console import Console

    from registry import Refusal

MOST_ROWS = 4
"""Rows of a manifest that a line of the table names."""


def quarantine(
    site: Annotated[str | None, typer.Argument(help="One site; default: all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also files that came in since.")] = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Files that the intake held back, and why. Put right and taken in again, they come in as if new."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.workplace import check_site

        found = workplace.registry.samples.quarantine(site)
        if not found:
            check_site(workplace, site)
        shown = [refusal for refusal in found if everything or not refusal.settled]
        if as_json:
            say_json([asdict(refusal) for refusal in shown])
        else:
            _show(make_console(), shown)


def _show(console: "Console", found: Sequence["Refusal"]) -> None:
    """One line per site and reason: how many files, and which rows of the manifest they were."""
    from rich.table import Table

    if not found:
        console.print("nothing is held back")
        return
    table = Table(title="Held back at intake", title_justify="left")
    for heading in ("site", "files", "rows", "reason"):
        table.add_column(heading)
    places: dict[tuple[str, str], list[int]] = {}
    for refusal in found:
        places.setdefault((refusal.site, refusal.reason), []).append(refusal.position)
    for (site, reason), rows in places.items():
        told = ", ".join(map(str, rows[:MOST_ROWS])) + (" ..." if len(rows) > MOST_ROWS else "")
        table.add_row(site, str(len(rows)), told, reason)
    console.print(table)
    console.print("Rows are those of the manifest that brought them (a folder: places in name order), from 1.")
