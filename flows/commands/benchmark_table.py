"""A benchmark's figures as tables that fit a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.benchmarks.benchmark_page import SHOWN, spelt, title_of


def show_benchmark(console: Console, found: Mapping[str, Any]) -> None:
    """The summary in two tables, scores and costs: mean and spread over seeds and orders."""
    # A few columns a table, so that they fit a terminal of 80.
    for title, shown in (("Scores", SHOWN[:4]), ("Sites", SHOWN[4:8]), ("Time", SHOWN[8:11]), ("Memory", SHOWN[11:])):
        table = Table(title=f"{title}: mean ± standard deviation over seeds and orders", title_justify="left")
        table.add_column("strategy")
        for _, heading, _ in shown:
            table.add_column(heading, justify="right")
        for row in found["summary"]:
            name = title_of(row, found["summary"], " r")
            table.add_row(name, *(spelt(row[key], factor).replace(" ", "") for key, _, factor in shown))
        console.print(table)
