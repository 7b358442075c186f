"""Inverted images: a fault of the sender that looks like a domain shift; knows statistics of pixels, no pixels.

An inverted 8-bit image has its grey levels mirrored (g becomes 255 - g). It is recognised when it lies outside
what the reference holds and its mirror image lies inside. That takes a reference of the SAME site: another site's
stain or tube can by chance sit where this one's inverse does. Windows whose grey levels are symmetric about the
middle cannot be told from their inverse; they, and windows without the four statistics used, give a share of 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from monitoring.robust_distance import distances, usual_distance
from monitoring.windows import Window

_WHITE = 255.0
_COLUMNS = ("mean", "p01", "p50", "p99")
_MIRRORED = ("mean", "p99", "p50", "p01")  # the darkest percentile of an image is the brightest of its inverse


def inverted_share(reference: Window, current: Window) -> float:
    """Share of the current samples that fit the reference only when inverted, in [0, 1]; 0 across two sites."""
    if reference.site != current.site:
        return 0.0
    known, new = _levels(reference.pixel_statistics, _COLUMNS), _levels(current.pixel_statistics, _COLUMNS)
    if known is None or new is None:
        return 0.0
    turned = _WHITE - new[:, [_COLUMNS.index(name) for name in _MIRRORED]]
    as_sent, as_inverted, limit = distances(known, new), distances(known, turned), usual_distance(known)
    # Half the distance: an odd image whose mirror is about as odd is no evidence for either.
    return float(np.mean((as_sent > limit) & (as_inverted <= limit) & (as_inverted < as_sent / 2)))


def _levels(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Float[np.ndarray, "sample statistic"] | None:
    if any(name not in row for row in rows for name in names):
        return None
    return np.array([[row[name] for name in names] for row in rows], dtype=float)
