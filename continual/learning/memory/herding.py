"""Herding (Welling 2009) as exemplars are chosen in iCaRL (Rebuffi et al. 2017): a cell's few stand for its mean.

In every (site, class) cell the next image is the one that brings the mean of those chosen nearest to the mean of the
cell, in frozen features scaled to length 1. For a cell learnt earlier, the mean is that of what is remembered of it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from continual.domain.errors import StreamError
from continual.learning.memory.policy import Candidates, MemoryPolicy, cells_of, in_turns


def _order(candidates: Candidates, most: int) -> Sequence[str]:
    if candidates.features is None:
        raise StreamError("herding chooses by frozen features and was given 0; pass them, or choose another policy")
    queues = []
    for cell in cells_of(candidates):
        places = herd(candidates.features(cell), min(most, len(cell)))
        queues.append([cell[place] for place in places])
    return list(in_turns(queues))


def herd(features: Float[np.ndarray, "image feature"], count: int) -> list[int]:
    """Rows in the order herding takes them, the first `count`; of equally good ones the earlier row."""
    rows = features.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    squares, mean = (rows**2).sum(axis=1), rows.mean(axis=0)
    chosen: list[int] = []
    total = np.zeros_like(mean)
    for number in range(1, count + 1):
        # |mean - (total + row) / number|^2 without what is the same for every row.
        distance = squares - 2 * rows @ (number * mean - total)
        distance[chosen] = np.inf
        # Rounding must not decide between twins: equal pictures of equal features differ in the last bits only.
        best = int(np.flatnonzero(distance <= distance.min() + 1e-9)[0])
        chosen.append(best)
        total += rows[best]
    return chosen


HERDING = MemoryPolicy(
    "herding", "per class and site those whose mean is the cell's mean", _order, nested=True, needs_features=True
)
"""The typical images of each cell; outliers are forgotten first."""
