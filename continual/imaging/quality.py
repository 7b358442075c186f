"""The quality gate: images that decode but must not be learnt from; knows nothing of where they came from."""

import numpy as np
from numpy.typing import NDArray

from continual.domain.errors import QualityError
from continual.imaging.decoding import MAX_SIDE
from continual.imaging.measurements import to_grey

MIN_SIDE = 16
"""Shortest side in pixels that holds any anatomy."""
MAX_SATURATED_SHARE = 0.98
"""Largest share of pixels that may be pure black or pure white."""
MIN_SPREAD = 0.5
"""Smallest standard deviation in grey levels; less is a blank exposure or a test field."""


def check_quality(pixels: NDArray[np.uint8]) -> None:
    """Passes an 8-bit RGB image, shape (height, width, 3), of usable size and content.

    Raises QualityError for a side under 16 or over 8192 pixels, a blank image (spread under half a grey level), or
    more than 98 % of pixels pure black or white.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise QualityError(f"pixels of shape {pixels.shape} and type {pixels.dtype} are not 8-bit RGB; decode first")
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise QualityError(f"the image is {width} x {height} pixels, each side needs {MIN_SIDE}; send the full image")
    if max(height, width) > MAX_SIDE:
        raise QualityError(f"the image is {width} x {height} pixels, each side may have {MAX_SIDE}; cut it into tiles")
    grey = to_grey(pixels)
    spread = float(grey.std(dtype=np.float64))
    if spread < MIN_SPREAD:
        raise QualityError(
            f"the image is blank: grey levels vary by {spread:.2f}, at least {MIN_SPREAD} is needed; check the exposure"
        )
    saturated = float(np.mean((grey == 0) | (grey == 255)))
    if saturated > MAX_SATURATED_SHARE:
        raise QualityError(
            f"{saturated:.1%} of the pixels are pure black or white, at most {MAX_SATURATED_SHARE:.0%} may be; "
            "check the exposure and the window"
        )
