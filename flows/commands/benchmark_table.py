"""A benchmark's figures as tables that fit a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.benchmarks.benchmark_page import OWN_PEAK, SHOWN, spelt, title_of

TABLES = (
    ("Scores", SHOWN[:3]),
    ("Sites", SHOWN[3:6]),
    ("Probabilities", SHOWN[6:8]),
    ("Time", SHOWN[8:11]),
    ("Memory", SHOWN[11:]),
)
"""A few columns each, so that they fit a terminal of 80."""


def show_benchmark(console: Console, found: Mapping[str, Any]) -> None:
    """The summary in tables of scores and of costs: mean and spread over seeds and orders, and of how many runs."""
    for place, (title, shown) in enumerate(TABLES):
        table = Table(title=f"{title}: mean ± standard deviation over seeds and orders", title_justify="left")
        table.add_column("strategy", overflow="fold")
        if place == 0:
            table.add_column("runs", justify="right", no_wrap=True)
        for _, heading, _ in shown:
            # A name may take two lines, a figure never.
            table.add_column(heading.replace(", ", ",\n"), justify="right", no_wrap=True)
        for row in found["summary"]:
            name = title_of(row, found["summary"], " r")
            figures = [spelt(row[key], factor).replace(" ", "") for key, _, factor in shown]
            table.add_row(name, *([str(row["runs"])] if place == 0 else []), *figures)
        console.print(table)
    console.print(OWN_PEAK, highlight=False)
