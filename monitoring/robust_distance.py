"""How far images lie from the middle of a reference, in units that a few odd ones do not stretch."""

import numpy as np
from jaxtyping import Float

_NEARLY_ALL = 0.99
_FINEST_SPREAD = 2.0  # grey levels; a reference from one phantom must not make every image look odd
_NORMAL_IQR = 1.349

Rows = Float[np.ndarray, "sample statistic"]
Distances = Float[np.ndarray, "sample"]


def distances(known: Rows, rows: Rows) -> Distances:
    """Largest distance over the columns from the reference's medians, in robust standard deviations."""
    centre = np.median(known, axis=0)
    quartiles = np.quantile(known, [0.25, 0.75], axis=0)
    spread = np.maximum((quartiles[1] - quartiles[0]) / _NORMAL_IQR, _FINEST_SPREAD)
    farthest: Distances = np.abs((rows - centre) / spread).max(axis=1)
    return farthest


def usual_distance(known: Rows) -> float:
    """The distance within which nearly all of the reference's own rows lie."""
    return float(np.quantile(distances(known, known), _NEARLY_ALL))
