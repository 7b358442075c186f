"""Statistics of a volume's voxels, under the names they have for pictures; knows nothing of files or what is normal.

Volumes have no common unit: grey levels 0 to 255 are told by the volume's own percentiles, and what that hides (gain,
offset, HU) is told in the file's own unit beside them.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from continual.imaging.measurements import laplacian_measures, level_statistics
from continual.imaging.voxel_grids import Spacing

Values = Float32[np.ndarray, "x y z"]

_DARKEST, _BRIGHTEST = 0.5, 99.5
"""Percentiles that become black and white: a few hot voxels must not darken all others."""


def voxel_statistics(values: Values, spacing_mm: Spacing) -> dict[str, float]:
    """Finite numbers describing a volume, in grey levels 0 to 255 unless said otherwise.

    `mean`, `std`, `p01`, `p50`, `p99`, `contrast`, `sharpness`, `noise` and `entropy` as in `pixel_statistics`; the two
    before the last are means over slices across the axis of the widest spacing. `saturated_low_share` and
    `saturated_high_share`: shares of voxels at the volume's least and greatest value. `value_p01`, `value_p50`,
    `value_p99`: percentiles in the file's own unit.
    """
    black, p01, p50, p99, white = (float(q) for q in np.percentile(values, (_DARKEST, 1, 50, 99, _BRIGHTEST)))
    low, high = float(values.min()), float(values.max())
    # A small shape on an empty background: percentiles see the background alone.
    window = (black, white) if white > black else (low, high)
    counts: Int64[np.ndarray, "256"] = np.zeros(256, dtype=np.int64)
    measures = []
    for grey in _grey_slices(values, spacing_mm, window):
        counts += np.bincount(grey.ravel(), minlength=256)
        measures.append(laplacian_measures(grey))
    sharpness, noise = np.mean(measures, axis=0)
    return level_statistics(counts / values.size) | {
        "sharpness": float(sharpness),
        "noise": float(noise),
        "saturated_low_share": float(np.mean(values == low)),
        "saturated_high_share": float(np.mean(values == high)),
        "value_p01": p01,
        "value_p50": p50,
        "value_p99": p99,
    }


def _grey_slices(
    values: Values, spacing_mm: Spacing, window: tuple[float, float]
) -> Iterator[UInt8[np.ndarray, "row column"]]:
    """Slices across the axis of the widest spacing, the head's axis where it is among the widest."""
    across = max(range(3), key=lambda axis: (spacing_mm[axis], axis))
    low, high = window
    for plane in np.moveaxis(values, across, 0):
        level = (plane.astype(np.float64) - low) * (255.0 / (high - low))
        yield np.rint(np.clip(level, 0, 255)).astype(np.uint8)
