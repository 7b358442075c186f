"""Are some of a window's subjects far out? For pixel statistics, where a change of a few images moves no middle.

Each subject has a distance from the pooled median, over all numeric columns in robust units. Of the 1, 2, 4, 8 ...
farthest subjects, how many are current? Everything but who is current stays the same under every permutation of
subjects, so each count is hypergeometric, and its p-value exact; the smallest, times the number of counts (Bonferroni),
is the finding's. Kolmogorov and Smirnov's test of each column's distribution overlooks five strange images of fifty.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import hypergeom

from continual.domain.drift import SignalFamily
from monitoring.detectors.detector import Detector, Effort, Finding
from monitoring.subject_tables import numeric_rows
from monitoring.windows import Window

NAME = "outlying subjects"
_NORMAL_MAD = 0.6745
_DIGITS = 9
_TINY = 1e-300


def measure(reference: Window, current: Window, family: SignalFamily, _effort: Effort) -> tuple[Finding, ...]:
    """One finding whose score is -log10 of its p-value, 0 or more; none where no column is numeric and varies."""
    known, new = reference.subject_count, current.subject_count
    rows = numeric_rows(reference, current, family)
    if not len(rows):
        return ()
    p_value, farthest, here = _rarest(_distances(rows), known)
    detail = {"reference_subjects": known, "current_subjects": new, "farthest": farthest, "of_them_current": here}
    return (Finding(NAME, abs(math.log10(p_value)), p_value, lambda level: -math.log10(level), detail),)


def _distances(rows: Float[np.ndarray, "column subject"]) -> Float[np.ndarray, "subject"]:
    """From the pooled median, in median absolute deviations; what was not recorded counts as usual."""
    apart = rows - np.nanmedian(rows, axis=1, keepdims=True)
    spread = np.nanmedian(np.abs(apart), axis=1, keepdims=True) / _NORMAL_MAD
    # Where most subjects share one value, the mean deviation serves: it is not 0 in a column that varies.
    spread = np.where(spread > 0, spread, np.nanmean(np.abs(apart), axis=1, keepdims=True))
    far: Float[np.ndarray, "subject"] = np.sqrt((np.nan_to_num(apart / spread) ** 2).sum(axis=0))
    return far


def _rarest(distances: Float[np.ndarray, "subject"], known: int) -> tuple[float, int, int]:
    """P-value, how many of the farthest subjects were counted where it is smallest, and how many of them are current.

    The first `known` distances are the reference's. Subjects as far as the last that counts all count.
    """
    subjects = len(distances)
    rounded = np.round(distances / max(float(distances.max()), _TINY), _DIGITS)
    edges = np.sort(rounded)[::-1][[2**power - 1 for power in range(int(math.log2(subjects / 2)) + 1)]]
    out = rounded >= edges[:, None]
    farthest, here = out.sum(axis=1), out[:, known:].sum(axis=1)
    chance = hypergeom.sf(here - 1, subjects, farthest, subjects - known)
    best = int(chance.argmin())
    return float(np.clip(len(edges) * chance[best], _TINY, 1.0)), int(farthest[best]), int(here[best])


DETECTOR = Detector("outlying", (SignalFamily.PIXEL_STATISTICS,), measure)
