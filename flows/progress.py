"""Progress of long work: bars on a terminal, silence elsewhere; one board per process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class _Board:
    """Holds the process's running progress display, or none."""

    def __init__(self) -> None:
        self.display: Progress | None = None


_BOARD = _Board()


@contextmanager
def progress_bars(console: Console) -> Iterator[None]:
    """Show bars on `console` for everything that runs inside; a console that is no terminal gets plain lines."""
    display = Progress(
        TextColumn("{task.description:<44.44}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with display:
        _BOARD.display = display
        try:
            yield
        finally:
            _BOARD.display = None


def track(description: str, total: int) -> Advance:
    """A new bar of `total` steps; the returned function moves it on. Without a display it does nothing."""
    display = _BOARD.display
    if display is None or total == 0:
        return lambda _steps: None
    task = display.add_task(description, total=total)

    def advance(steps: int) -> None:
        display.advance(task, steps)

    return advance


def say(message: str) -> None:
    """One line above the bars; silent without a display."""
    if _BOARD.display is not None:
        _BOARD.display.console.print(message, highlight=False)
