"""Images that lack part of their field: a fault of the sender that looks like a domain shift; knows numbers, no pixels.

Two ways to lose part of an image, both told against a reference of the SAME site. A filled field: rows that never
arrived, or a frame around what is left, are pure black or white. Such an image holds more of that level than the
reference, and is like the reference once the excess is left out: an image that is only darker is not. A smaller field:
the image has fewer rows or columns than the reference and no more of the other, while its grey levels and all its other
tags are the reference's: the same scanner, cut. What was cut and stretched to the old size cannot be told from another
magnification, nor can a smaller field at a new site. Windows without the statistics or tags used give a share of 0.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from monitoring.robust_distance import distances, usual_distance
from monitoring.windows import Window

_BLACK, _WHITE = 0.0, 255.0
_LEVELS = ("mean", "p01", "p50", "p99")
_FILLED = ("mean", "p01", "p99", "saturated_low_share", "saturated_high_share")
_SIDES = (("width", "height"), ("columns", "rows"))
"""Names of an image's sides in its tags: of pictures, and of DICOM."""
_USUAL_QUANTILE = 0.99
_SMALLEST_LOSS = 0.05
"""Share of an image; less is a dark corner or a label."""
_LARGEST_LOSS = 0.9
_PART_FACTOR = 2.0
"""A part of an image lies this much farther from the middle of images than whole ones do."""
_LONGEST_CUT = 0.95
"""Of the shortest side that is usual; a longer one is rounding."""

Rows = Float[np.ndarray, "sample column"]
Marks = Bool[np.ndarray, "sample"]


def cropped_share(reference: Window, current: Window) -> float:
    """Share of the current samples that lost part of their field, in [0, 1]; 0 across two sites."""
    if reference.site != current.site:
        return 0.0
    cropped: Marks = _filled(reference, current) | _cut(reference, current)
    return float(cropped.mean())


def _filled(reference: Window, current: Window) -> Marks:
    known, new = (_numbers(window.pixel_statistics, _FILLED) for window in (reference, current))
    if known is None or new is None:
        return np.zeros(len(current.subjects), dtype=bool)
    filled: Marks = _fits_without(known, new, _BLACK) | _fits_without(known, new, _WHITE)
    return filled


def _fits_without(known: Rows, new: Rows, level: float) -> Marks:
    """Images that have more of a level than the reference, and in the rest are like it."""
    share = _FILLED.index("saturated_low_share" if level == _BLACK else "saturated_high_share")
    # The filling moves this percentile least; a darker image moves it as far as all else.
    edge = _FILLED.index("p99" if level == _BLACK else "p01")
    usual = float(np.median(known[:, share]))
    limit = max(float(np.quantile(known[:, share], _USUAL_QUANTILE)), usual + _SMALLEST_LOSS)
    lost = np.clip(new[:, share] - usual, 0, _LARGEST_LOSS)
    rest = np.stack([(new[:, 0] - lost * level) / (1 - lost), new[:, edge]], axis=1)
    filled: Marks = (new[:, share] > limit) & _alike(known[:, [0, edge]], rest, _PART_FACTOR)
    return filled


def _cut(reference: Window, current: Window) -> Marks:
    """Images smaller than usual on a side and larger on none, with the reference's grey levels and other tags."""
    none = np.zeros(len(current.subjects), dtype=bool)
    known, new = (_numbers(window.pixel_statistics, _LEVELS) for window in (reference, current))
    names = next((names for names in _SIDES if _numbers(reference.tags, names) is not None), None)
    if known is None or new is None or names is None:
        return none
    usual, sides = _numbers(reference.tags, names), _numbers(current.tags, names)
    if usual is None or sides is None:
        return none
    shortest, longest = np.quantile(usual, [1 - _USUAL_QUANTILE, _USUAL_QUANTILE], axis=0)
    smaller = (sides < _LONGEST_CUT * shortest).any(axis=1) & (sides <= longest).all(axis=1)
    cut: Marks = smaller & _alike(known, new) & ~_has_new_tag(reference, current, names)
    return cut


def _has_new_tag(reference: Window, current: Window, besides: Sequence[str]) -> Marks:
    """Images with a text that no reference image has, or a number outside the reference's range: another device."""
    texts: dict[str, set[str]] = {}
    numbers: dict[str, list[float]] = {}
    for row in reference.tags:
        for name, value in _recorded(row, besides).items():
            if isinstance(value, str):
                texts.setdefault(name, set()).add(value)
            else:
                numbers.setdefault(name, []).append(value)
    ranges = {name: (min(values), max(values)) for name, values in numbers.items()}

    def is_new(name: str, value: str | float) -> bool:
        if isinstance(value, str):
            return value not in texts.get(name, ())
        return name not in ranges or not ranges[name][0] <= value <= ranges[name][1]

    return np.array(
        [any(is_new(name, value) for name, value in _recorded(row, besides).items()) for row in current.tags],
        dtype=bool,
    )


def _recorded(row: Mapping[str, str | float], besides: Sequence[str]) -> dict[str, str | float]:
    there = {name: value for name, value in row.items() if name not in besides}
    return {name: value for name, value in there.items() if isinstance(value, str) or math.isfinite(value)}


def _alike(known: Rows, new: Rows, factor: float = 1.0) -> Marks:
    """Rows within `factor` times the distance that nearly all rows of the reference keep from their middle."""
    near: Marks = distances(known, new) <= factor * usual_distance(known)
    return near


def _numbers(rows: Sequence[Mapping[str, str | float]], names: Sequence[str]) -> Rows | None:
    """The values of some names, one row per sample; None where a row lacks one."""
    if any(name not in row for row in rows for name in names):
        return None
    return np.array([[float(row[name]) for name in names] for row in rows], dtype=float)
