"""Two windows' tags or pixel statistics as columns with one value per subject; knows nothing of tests.

Images of one subject are not exchangeable, so each subject gives one value per column: the median of numbers, the most
frequent of strings. A median of 17 images varies less than a single image does, so where subjects of one window have
many images and those of the other few, images are drawn down to the smaller typical number; else the difference in
numbers alone would look like drift. What a column becomes depends on both windows together, never on which window a
value came from, so the choice cannot raise the false-alarm rate of a test made on it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median, median_low

import numpy as np
from jaxtyping import Float

from continual.domain.drift import SignalFamily
from monitoring.windows import Window

FEW_VALUES = 5
"""Numbers with no more different values than this are categories: ties would make a rank test blind."""
MOST_CATEGORIES = 20
"""The most frequent categories are kept, the others become one."""
_DIGITS = 9
_ROUNDED_KEPT = 1 << 16
"""Numbers whose rounding is remembered: every test of a look reads the same tables."""
_SEED = 1900  # any constant serves: images are drawn without a look at their values
MISSING, OTHER = "(not recorded)", "(other)"
PRESENCE_SUFFIX = " is recorded"

Value = str | float


@dataclass(frozen=True, slots=True)
class Column:
    """One property, one value per subject in each window; None only in numeric columns, where it was not recorded."""

    name: str
    numeric: bool
    reference: tuple[Value | None, ...]
    current: tuple[Value | None, ...]


@lru_cache(maxsize=1)
def paired_columns(reference: Window, current: Window, family: SignalFamily) -> tuple[Column, ...]:
    """Columns worth testing, by name; constant ones are left out.

    A number that some subjects lack gives two columns, its values where recorded and whether it is recorded, so a
    property that appears or disappears is a signal of its own. A string that some lack gives one more category. Several
    detectors ask for the same table one after another; windows are the same to the cache only as the same objects.
    """
    images = min(_typical_images(window) for window in (reference, current))
    tables = [_by_subject(window, family, images) for window in (reference, current)]
    names = sorted({name for table in tables for row in table for name in row})
    return tuple(column for name in names for column in _columns(name, *tables))


def numeric_rows(reference: Window, current: Window, family: SignalFamily) -> Float[np.ndarray, "column subject"]:
    """Every numeric column that varies, a row each: the reference's subjects, then the current ones; nan: not recorded.

    The few numbers of a column stand in a table without the subjects that lack it: whose each value is cannot be told,
    and such a column is left out.
    """
    known, new = reference.subject_count, current.subject_count
    whole = (
        column
        for column in paired_columns(reference, current, family)
        if (len(column.reference), len(column.current)) == (known, new)
    )
    rows = [numbers for column in whole if (numbers := _numbers(column)) is not None]
    return np.array(rows).reshape(len(rows), known + new)


def _numbers(column: Column) -> Float[np.ndarray, "subject"] | None:
    """Values in both windows, nan where not recorded; None for texts, unless they are the few numbers of a column."""
    try:
        return np.array([*column.reference, *column.current], dtype=float)
    except ValueError:
        return None


def values_over_time(column: Column, family: SignalFamily, windows: Sequence[Window]) -> list[list[Value]]:
    """What a column of `paired_columns` holds in each of several windows; subjects that lack it are left out."""
    images = min(_typical_images(window) for window in windows)
    name = column.name.removesuffix(PRESENCE_SUFFIX)
    rows = [[row.get(name, []) for row in _by_subject(window, family, images)] for window in windows]
    if column.name != name:
        return [["yes" if values else "no" for values in window] for window in rows]
    if any(isinstance(value, str) for window in rows for values in window for value in values):
        return [[_most_frequent(values) for values in window] for window in rows]
    numbers = [[value for value in map(_median, window) if value is not None] for window in rows]
    return [[value if column.numeric else _text(value) for value in window] for window in numbers]


def _typical_images(window: Window) -> int:
    return int(median_low(Counter(window.subjects).values()))


def _by_subject(window: Window, family: SignalFamily, images: int) -> list[dict[str, list[Value]]]:
    """Per subject, in order of name, the recorded values of each column over at most `images` of its images."""
    rows = window.tags if family is SignalFamily.ACQUISITION_TAGS else window.pixel_statistics
    places: dict[str, list[int]] = defaultdict(list)
    for place, subject in enumerate(window.subjects):
        places[subject].append(place)
    generator = np.random.default_rng(_SEED)
    table = []
    for subject in sorted(places):
        values: dict[str, list[Value]] = defaultdict(list)
        for place in generator.permutation(places[subject])[:images]:
            _add(values, rows[place])
        table.append(dict(values))
    return table


def _add(values: dict[str, list[Value]], row: Mapping[str, Value]) -> None:
    for name, value in row.items():
        if isinstance(value, str):
            if value.strip():
                values[name].append(value.strip())
        elif isinstance(value, bool):
            values[name].append(str(value))
        elif math.isfinite(value):
            values[name].append(_rounded(value))


@lru_cache(maxsize=_ROUNDED_KEPT)
def _rounded(value: float) -> float:
    """Nine digits: spacing 0.2 and 0.2 plus rounding noise are one value."""
    return float(f"{value:.{_DIGITS}g}")


def _columns(
    name: str, reference: Sequence[Mapping[str, list[Value]]], current: Sequence[Mapping[str, list[Value]]]
) -> list[Column]:
    windows = [[row.get(name, []) for row in table] for table in (reference, current)]
    if any(isinstance(value, str) for window in windows for values in window for value in values):
        return _categorical(name, *([_most_frequent(values) for values in window] for window in windows))
    numbers = [[_median(values) for values in window] for window in windows]
    return [*_numeric(name, *numbers), *_presence(name, *numbers)]


def _most_frequent(values: Sequence[Value]) -> str:
    counts = Counter(_text(value) for value in values)
    return min(counts, key=lambda text: (-counts[text], text)) if counts else MISSING


def _median(values: Sequence[Value]) -> float | None:
    if len(values) == 1:  # one image a subject, the usual case, at a tenth of the price
        return float(values[0])
    return float(median(map(float, values))) if values else None


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.{_DIGITS}g}"


def _numeric(name: str, reference: Sequence[float | None], current: Sequence[float | None]) -> list[Column]:
    here, there = ([value for value in window if value is not None] for window in (current, reference))
    if not here or not there:
        return []
    if len({*here, *there}) <= FEW_VALUES:
        return _categorical(name, [_text(value) for value in there], [_text(value) for value in here])
    return [Column(name, numeric=True, reference=tuple(reference), current=tuple(current))]


def _presence(name: str, reference: Sequence[float | None], current: Sequence[float | None]) -> list[Column]:
    marks = [["no" if value is None else "yes" for value in window] for window in (reference, current)]
    return _categorical(name + PRESENCE_SUFFIX, *marks)


def _categorical(name: str, reference: Sequence[str], current: Sequence[str]) -> list[Column]:
    counts = Counter([*reference, *current])
    if len(counts) == 1:
        return []
    kept = set(sorted(counts, key=lambda text: (-counts[text], text))[:MOST_CATEGORIES])
    merged = [tuple(text if text in kept else OTHER for text in window) for window in (reference, current)]
    return [Column(name, numeric=False, reference=merged[0], current=merged[1])]
