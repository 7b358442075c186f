"""The quality gate: images and volumes that decode but must not be learnt from; knows nothing of their sources."""

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from continual.domain.errors import QualityError
from continual.imaging.decoded import MAX_SIDE
from continual.imaging.measurements import to_grey

MIN_SIDE = 16
"""Shortest side in pixels that holds any anatomy."""
MAX_SATURATED_SHARE = 0.98
"""Largest share of pixels that may be pure black or pure white."""
MIN_SPREAD = 0.5
"""Smallest standard deviation in grey levels; less is a blank exposure or a test field."""
MIN_CONTENT_SHARE = 0.0005
"""Smallest share of a volume's voxels that differ from its commonest value."""


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


def check_volume(values: Float32[np.ndarray, "x y z"]) -> None:
    """Passes a volume of usable size and content; shapes cut out by a mask, nearly all background, pass.

    Raises QualityError when fewer than two sides have 16 voxels, or fewer than 0.05 % of the voxels differ from the
    median, which is the commonest value where so few do.
    """
    named = " x ".join(map(str, values.shape))
    if sorted(values.shape)[1] < MIN_SIDE:
        raise QualityError(
            f"the volume is {named} voxels, two sides need {MIN_SIDE}; send the whole volume, or its slices as images"
        )
    content = float(np.mean(values != np.partition(values, values.size // 2, axis=None)[values.size // 2]))
    if content < MIN_CONTENT_SHARE:
        raise QualityError(
            f"the volume is blank: {content:.3%} of its {named} voxels differ from the others, at least "
            f"{MIN_CONTENT_SHARE:.2%} are needed; check the export"
        )
