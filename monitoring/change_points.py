"""Since when: the border between windows at which what came before and what came after differ most.

For numbers the statistic is that of Pettitt (1979), ranks of before against after, here divided by its spread so that
early and late borders have the same chance; for categories, Pearson's chi-square of the same two sides. What changed in
several steps, or slowly, is split again on its earlier side (binary segmentation, Scott & Knott 1974) until no step is
left there: the first one is when it began. Knows nothing of families or verdicts.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chi2, rankdata

from monitoring.subject_tables import Value

PLAUSIBLE = 3.84
"""A border is plausible whose statistic lies within this of the largest (chi-square's 95 % point, one freedom)."""
RARE = 0.001
"""An earlier step counts when chance alone gives such a statistic at one border less often than this."""


def change_point(reference: Sequence[Value], windows: Sequence[Sequence[Value]]) -> int | None:
    """The window, from 1, with which one property of subjects began to change; 1: after the reference.

    None where every one of several borders is plausible, or where a side has no value.
    """
    if not reference or not any(windows):
        return None
    # A border before an empty window is the border before the next one.
    borders = [k for k, window in enumerate(windows, start=1) if window]
    if len(borders) == 1:
        return borders[0]
    statistics, _ = _differ(reference, windows, borders)
    best = int(statistics.argmax())
    if (statistics >= statistics[best] - PLAUSIBLE).all():
        return None
    return _first_step(reference, windows, borders[:best], borders[best])


def _first_step(
    reference: Sequence[Value], windows: Sequence[Sequence[Value]], earlier: Sequence[int], found: int
) -> int:
    """The earliest border that is a step by itself, of those before one that was found."""
    while earlier:
        statistics, freedoms = _differ(reference, windows[: found - 1], earlier)
        best = int(statistics.argmax())
        if statistics[best] < chi2.isf(RARE, freedoms):
            break
        found, earlier = earlier[best], earlier[:best]
    return found


def _differ(
    reference: Sequence[Value], windows: Sequence[Sequence[Value]], borders: Sequence[int]
) -> tuple[Float[np.ndarray, "border"], int]:
    """How much before and after differ at each border, about a chi-square where nothing does, and its freedoms."""
    codes = np.repeat(np.arange(len(windows) + 1), [len(reference), *map(len, windows)])
    pooled = [*reference, *(value for window in windows for value in window)]
    if any(isinstance(value, str) for value in pooled):
        return _of_categories(pooled, codes, borders), max(len(set(pooled)) - 1, 1)
    return _of_numbers(pooled, codes, borders), 1


def _of_numbers(
    values: Sequence[Value], codes: Int[np.ndarray, "subject"], borders: Sequence[int]
) -> Float[np.ndarray, "border"]:
    """Squared standardised rank sums (Kruskal & Wallis 1952 for two groups, ties counted)."""
    ranks = rankdata(np.asarray(values, dtype=float))
    spread = ranks.var(ddof=1)
    if spread == 0:
        return np.zeros(len(borders))
    after = np.array([codes >= border for border in borders])
    count = after.sum(axis=1)
    gap = (after @ ranks) / count - ranks.mean()
    squares: Float[np.ndarray, "border"] = gap**2 * count * len(ranks) / (len(ranks) - count) / spread
    return squares


def _of_categories(
    values: Sequence[Value], codes: Int[np.ndarray, "subject"], borders: Sequence[int]
) -> Float[np.ndarray, "border"]:
    names, kinds = np.unique([str(value) for value in values], return_inverse=True)
    total = np.bincount(kinds, minlength=len(names))
    squares = np.zeros(len(borders))
    for place, border in enumerate(borders):
        after = np.bincount(kinds[codes >= border], minlength=len(names))
        share = after.sum() / len(kinds)
        squares[place] = ((after - total * share) ** 2 / (total * share * (1 - share))).sum()
    return squares
