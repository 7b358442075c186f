"""Progress of long work: bars on a terminal, silence elsewhere; one board per process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]
WORTH_A_LINE_SECONDS = 2.0


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
    """A new bar of `total` steps; the returned function moves it on. Without a display it does nothing.

    A bar that is full leaves the screen; what took a while stays as a line with its seconds.
    """
    display = _BOARD.display
    if display is None or total == 0:
        return lambda _steps: None
    task = display.add_task(description, total=total)
    started = time.monotonic()

    def advance(steps: int) -> None:
        display.advance(task, steps)
        if task in display.task_ids and display.tasks[display.task_ids.index(task)].finished:
            seconds = time.monotonic() - started
            display.remove_task(task)
            if seconds >= WORTH_A_LINE_SECONDS:
                display.console.print(f"  {description}: {total} in {seconds:.0f} s", highlight=False)

    return advance


def say(message: str) -> None:
    """One line above the bars; silent without a display."""
    if _BOARD.display is not None:
        _BOARD.display.console.print(message, highlight=False)
