"""Root-cause card: which tag, which pixel statistic, since when, and which images to look at; decides no verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import PropertyShift, RootCause, SignalFamily
from monitoring import column_tests
from monitoring.change_points import change_point
from monitoring.detectors import tabular
from monitoring.example_images import examples_of
from monitoring.multiplicity import holm
from monitoring.subject_tables import Column, Value, paired_columns, values_over_time
from monitoring.windows import Window, draw_subjects, pool

MOST_SHIFTS = 8
"""Properties on a card, the rest are counted."""
MOST_SUBJECTS = 1000
MIDDLE = (0.1, 0.9)
"""Quantiles between which the middle 80 % of subjects lie."""
SHOWN_CATEGORIES = 2
MOST_CHARACTERS = 28
"""Of a category's name."""
TABLES = (SignalFamily.ACQUISITION_TAGS, SignalFamily.PIXEL_STATISTICS)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """All windows since the promotion, the current one last, None where one was erased.

    `shifted` is the window, from 1, from which on they are held against the reference: where the evidence begins.
    `strongest` is the family with most evidence of drift, None where none was called.
    """

    windows: tuple[Window | None, ...]
    shifted: int
    strongest: SignalFamily | None = None

    @property
    def current(self) -> Window:
        """The windows that drifted, pooled."""
        return pool([window for window in self.windows[self.shifted - 1 :] if window is not None])

    def arrived(self, window: int | None) -> datetime | None:
        """When a window's first image was taken in, where that is known."""
        found = None if window is None else self.windows[window - 1]
        return None if found is None else found.arrived


def root_cause(reference: Window, stretch: Stretch, plan: ChangePlan) -> RootCause:
    """The card. Properties are those that Holm, over all tags and pixel statistics, rejects at the first look's level.

    Ranked by the share of subjects that moved, among equals tags before pixels: a tag is a cause, pixels its effect.
    """
    reference = draw_subjects(reference, MOST_SUBJECTS, plan.seed)
    current = draw_subjects(stretch.current, MOST_SUBJECTS, plan.seed)
    moved = [_shift(each, reference, stretch) for each in _moved(reference, current, plan)]
    shifts = tuple(sorted(moved, key=_rank)[:MOST_SHIFTS])
    last = stretch.windows[-1]
    examples = examples_of(reference, current if last is None else last, plan.seed)
    return RootCause(
        _said(shifts, len(moved), stretch.strongest), shifts, examples.usual, examples.nearest, examples.farthest
    )


@dataclass(frozen=True, slots=True)
class _Moved:
    family: SignalFamily
    column: Column
    adjusted: float


def _moved(reference: Window, current: Window, plan: ChangePlan) -> list[_Moved]:
    columns = [(family, column) for family in TABLES for column in paired_columns(reference, current, family)]
    adjusted = holm(column_tests.p_values([column for _, column in columns]))
    level = plan.alpha * plan.first_look_share
    # Grey images have three equal channels: what says the same as another is told once.
    unlike = {
        (column.reference, column.current) if column.numeric else column.name: _Moved(family, column, p)
        for (family, column), p in reversed([*zip(columns, adjusted, strict=True)])
        if p <= level
    }
    return list(unlike.values())


def _shift(moved: _Moved, reference: Window, stretch: Stretch) -> PropertyShift:
    """Since when a property moved, and how it is since then; since the drift began, where that cannot be told."""
    held = [(number, window) for number, window in enumerate(stretch.windows, start=1) if window is not None]
    known, *values = values_over_time(moved.column, moved.family, [reference, *(window for _, window in held)])
    place = change_point(known, values)
    since = None if place is None else held[place - 1][0]
    column = moved.column
    if place is not None:
        new = tuple(value for window in values[place - 1 :] for value in window)
        column = Column(column.name, column.numeric, tuple(known), new)
    usual, now = _described(column)
    return PropertyShift(
        family=moved.family,
        name=column.name,
        usual=usual,
        now=now,
        score=tabular.moved_share(column),
        adjusted_p_value=moved.adjusted,
        since_window=since,
        since_date=stretch.arrived(since),
    )


def _rank(shift: PropertyShift) -> tuple[float, int, float, str]:
    return -round(shift.score, 2), list(SignalFamily).index(shift.family), shift.adjusted_p_value, shift.name


def _described(column: Column) -> tuple[str, str]:
    """What was usual and what is now, in words."""
    known, new = ([value for value in side if value is not None] for side in (column.reference, column.current))
    if column.numeric:
        return _spread(known), _spread(new)
    shares = [{name: count / len(side) for name, count in Counter(side).items()} for side in (known, new)]
    names = {name for side in shares for name in side}
    most = max(sorted(names, key=str), key=lambda name: abs(shares[1].get(name, 0) - shares[0].get(name, 0)))
    usual, now = (_shares(side, most) for side in shares)
    return usual, now


def _spread(values: Sequence[Value]) -> str:
    low, middle, high = np.quantile(np.asarray(values, dtype=float), [MIDDLE[0], 0.5, MIDDLE[1]])
    return f"median {_number(middle)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _shares(shares: dict[Value, float], most: Value) -> str:
    """The most frequent categories, and the one whose share changed most."""
    frequent = sorted(shares, key=lambda name: (-shares[name], str(name)))[:SHOWN_CATEGORIES]
    shown = frequent if most in frequent or most not in shares else [frequent[0], most]
    return ", ".join(f"{_short(str(name))} ({_percent(shares[name])})" for name in shown)


def _percent(share: float) -> str:
    """Whole per cents, but nothing that is there reads as 0 and nothing that is missing as 100."""
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def _short(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 1]}…"


def _said(shifts: Sequence[PropertyShift], count: int, strongest: SignalFamily | None) -> str:
    nothing = "no single acquisition tag or pixel statistic of the images that were kept moved beyond chance"
    if not shifts and strongest is None:
        return nothing
    if not shifts and strongest is not None:
        return f"{nothing}; the evidence is mostly in the {strongest.value.replace('_', ' ')}: see the farthest images"
    top = shifts[0]
    kind = "tag" if top.family is SignalFamily.ACQUISITION_TAGS else "pixel statistic"
    more = f"; {count - 1} more moved" if count > 1 else ""
    return f"{kind} {top.name} moved most, from {top.usual} to {top.now}{_since(top)}{more}"


def _since(shift: PropertyShift) -> str:
    if shift.since_window is None:
        return ", since when cannot be told"
    date = "" if shift.since_date is None else f" ({shift.since_date:%Y-%m-%d})"
    return f", since window {shift.since_window}{date}"
