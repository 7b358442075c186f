"""Did all of a window's pixel statistics move together? For changes too small for any one of them.

Statistics of one image go together: what is sharp is noisy, what is bright has little contrast. A slight blur leaves
each within its usual range and breaks how they go together. Every column becomes normal scores of its ranks over both
windows; the score is Mahalanobis' distance between the windows' means, Hotelling's T-squared (1931) in other units, for
ranks after Puri & Sen (1971). Subjects are permuted between the windows, which is exact, also for a single subject.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2, norm, rankdata

from continual.domain.drift import SignalFamily
from monitoring.detectors.detector import Detector, Effort, Finding
from monitoring.detectors.permuted import Groups, Permuted, permuted_groups
from monitoring.subject_tables import numeric_rows
from monitoring.windows import Window

NAME = "statistics together"
_SHARES = 40
"""The smallest p-value is a family's level over this, or over twice its statistics and tests where they are more."""
_RARE = 0.02
"""Where no fewer of the first permutations are as far apart, the p-value is theirs; else many more join them. Levels up
to this share are kept because only those that passed all can be called, levels above it by the first ones alone."""
_REDUNDANT = 1e-6
"""Directions with less than this share of the largest variance are what other columns say already, and rounding."""
_GROUPS_AT_ONCE = 1000


def measure(reference: Window, current: Window, family: SignalFamily, effort: Effort) -> tuple[Finding, ...]:
    """One finding whose score is a distance in standard deviations, 0 or more; none where fewer than two numbers vary.

    The standard deviation is that of all subjects of both windows, along the direction in which the windows differ.
    The smallest alarming score is the large-sample one, of a chi-square law with a degree of freedom per direction.
    p = (1+b)/(1+B) over permutations of whole subjects (Phipson & Smyth 2010). A value that was not recorded counts as
    usual.
    """
    rows = numeric_rows(reference, current, family)
    if len(rows) < 2:
        return ()
    points = _uncorrelated(rows)
    permuted, score = _permuted(points, current.subject_count, len(rows), effort)
    counts = {"reference_subjects": reference.subject_count, "current_subjects": current.subject_count}
    spread = math.sqrt(sum(1 / count for count in counts.values()))
    return (
        Finding(
            NAME,
            score,
            permuted.p_value(score),
            lambda level: math.sqrt(chi2.isf(level, len(points))) * spread,
            {**counts, "permutations": len(permuted.scores)},
        ),
    )


def _permuted(
    points: Float[np.ndarray, "direction subject"], new: int, columns: int, effort: Effort
) -> tuple[Permuted, float]:
    """Distances under permutation, and the one that was observed; the last `new` subjects are current."""
    known = points.shape[1] - new
    distances = _distances(points, permuted_groups(known, new, effort.permutations, effort.seed))
    score, first = float(distances[0]), distances[1:]
    permuted = Permuted.of(first)
    if permuted.p_value(score) >= _RARE:
        return permuted, score
    shares = max(_SHARES, 2 * columns + 4)
    more = math.ceil(shares / effort.level) - 1 - effort.permutations
    others = _distances(points, permuted_groups(known, new, max(more, 0), effort.seed + 1)[1:])
    return Permuted.of(np.concatenate([first, others])), score


def _uncorrelated(rows: Float[np.ndarray, "column subject"]) -> Float[np.ndarray, "direction subject"]:
    """Normal scores of each column's ranks, in directions that have mean 0, variance 1 and nothing in common."""
    recorded = ~np.isnan(rows)
    ranks = rankdata(rows, axis=1, nan_policy="omit")
    scores = np.where(recorded, norm.ppf((ranks - 0.5) / recorded.sum(axis=1, keepdims=True)), 0.0)
    scores -= scores.mean(axis=1, keepdims=True)
    scores /= scores.std(axis=1, keepdims=True)
    variances, directions = np.linalg.eigh(np.corrcoef(scores))
    kept = variances > _REDUNDANT * variances.max()
    whitened: Float[np.ndarray, "direction subject"] = (directions[:, kept] / np.sqrt(variances[kept])).T @ scores
    return whitened


def _distances(points: Float[np.ndarray, "direction subject"], groups: Groups) -> Float[np.ndarray, "group"]:
    """Between the mean of each group and the mean of all other subjects; all groups are of one size."""
    subjects, inside = groups.shape[1], int(groups[0].sum())
    parts = range(0, len(groups), _GROUPS_AT_ONCE)
    sums = np.vstack([groups[start : start + _GROUPS_AT_ONCE].astype(float) @ points.T for start in parts])
    # The mean of all is 0, so what the others sum up to is the group's sum with the other sign.
    distances: Float[np.ndarray, "group"] = np.linalg.norm(sums, axis=1) * subjects / (inside * (subjects - inside))
    return distances


DETECTOR = Detector("joint", (SignalFamily.PIXEL_STATISTICS,), measure)
