"""What the verbs of the command line share: options, the console, an open workspace. Heavy imports stay inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from flows.workplace import Workplace

Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder of the project: database, artifacts, caches.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Adapter = Annotated[str, typer.Option("--adapter", "-a", help="Name of the adapter, a family of versions.")]
HERE = Path("continual-workspace")


def make_console() -> "Console":
    """The terminal, or what stands in its place."""
    from rich.console import Console

    return Console()


def say_json(value: object) -> None:
    """A value as JSON on standard output."""
    from flows.terminal import print_json

    print_json(make_console(), value)


@contextmanager
def workplace_at(workspace: Path) -> "Iterator[Workplace]":
    """The rooms of a workspace that exists."""
    from flows.workplace import open_workplace

    with open_workplace(workspace) as workplace:
        yield workplace
