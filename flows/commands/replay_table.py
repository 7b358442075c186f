"""A replay for people: sites by plan, then what happened when; knows nothing of how it was found."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.drift.replay import RECORDED, Replay, SiteCourse

ASSUMED = (
    "Champions are history's own: no promotion is assumed where there was none, and none is undone.",
    "Looks are the scheduled monitor's, taken when a window is due; what was recorded may hold looks by hand.",
    "A label that came late counts from when it came, any other from when its image came.",
)
"""What a replay takes for granted, for whoever reads its figures."""


def replay_record(found: Replay) -> dict[str, Any]:
    """A replay as plain JSON."""
    return {**asdict(found), "assumed": _assumed(found)}


def show_replay(console: Console, found: Replay) -> None:
    """One line per site and plan, the timelines, and what is assumed."""
    table = Table(title=f"Replay of {found.adapter} until {_day(found.until)}", title_justify="left")
    table.add_column("site", overflow="fold")
    table.add_column("plan", no_wrap=True)
    for heading in ("looks", "alarms", "first", "updates", "waited", "min"):
        table.add_column(heading, justify="right", no_wrap=True)
    for course in found.courses:
        table.add_row(
            course.site,
            course.plan,
            str(len(course.looks)),
            str(len(course.alarms)),
            _day(course.alarms[0].at if course.alarms else None),
            str(len(course.updates)),
            "-" if course.plan == RECORDED else str(len(course.waiting)),
            "?" if course.training_seconds is None else f"{course.training_seconds / 60:.1f}",
        )
    console.print(table)
    _show_timeline(console, found.courses)
    for line in _assumed(found):
        console.print(line, style="dim", highlight=False)


def _show_timeline(console: Console, courses: Sequence[SiteCourse]) -> None:
    """Alarms, updates and holds in order of time."""
    lines = [
        (at, course.site, course.plan, said)
        for course in courses
        for begun in ["update" if course.plan == RECORDED else "an update would begin"]
        for at, said in (
            *((alarm.at, f"{alarm.verdict.value} -> {alarm.action.value}") for alarm in course.alarms),
            *((update.at, begun) for update in course.updates),
            *((update.at, f"no update: {update.waits}") for update in course.waiting),
        )
    ]
    for at, site, plan, said in sorted(lines, key=lambda line: line[:3]):
        console.print(f"{at:%Y-%m-%d %H:%M}  {site}  {plan}: {said}", highlight=False)


def _assumed(found: Replay) -> list[str]:
    each = found.seconds_per_update
    cost = "unknown: the gate has judged none yet" if each is None else f"{each:.0f} s, the median of those judged"
    said = [*ASSUMED, f"An update that would have been counts as {cost}."]
    if found.not_replayed:
        names = ", ".join(found.not_replayed)
        said.append(f"Not replayed, since it shapes training, the gate or storage and no look: {names}.")
    return said


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%d")
