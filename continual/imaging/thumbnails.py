"""Small pictures of stored images, for a page; knows nothing of samples or pages."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from continual.domain.drift_views import ExampleImage
from continual.domain.errors import UnreadableImageError
from continual.imaging.decoding import decode_image
from continual.imaging.rasters import encode_png
from continual.imaging.volumes import decode_volume, is_volume

SIDE_PX = 112
_DARKEST, _BRIGHTEST = 0.5, 99.5


def thumbnails(images: Mapping[str, ExampleImage]) -> dict[str, ExampleImage]:
    """The same images, small; one that cannot be read is missing."""
    return {digest: _small(image) for digest, image in images.items()}


def _small(image: ExampleImage) -> ExampleImage:
    if image.data is None:
        return image
    try:
        return ExampleImage(thumbnail(image.data))
    except UnreadableImageError:
        return ExampleImage(None, "cannot be read")


def thumbnail(data: bytes, side_px: int = SIDE_PX) -> bytes:
    """A PNG of a stored image, its longer side `side_px` at most, without metadata.

    Of a volume the middle slice across the axis of the widest spacing, black and white at its percentiles .5 and 99.5.
    Raises UnreadableImageError when the bytes are damaged.
    """
    pixels = _middle_slice(data) if is_volume(data) else decode_image(data).pixels
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.BOX)
    return encode_png(np.asarray(image))


def _middle_slice(data: bytes) -> NDArray[np.uint8]:
    volume = decode_volume(data)
    across = max(range(3), key=lambda axis: (volume.spacing_mm[axis], axis))
    plane = np.take(volume.values, volume.values.shape[across] // 2, axis=across)
    low, high = np.percentile(plane, (_DARKEST, _BRIGHTEST))
    grey = np.clip((plane - low) * (255.0 / max(float(high - low), 1e-12)), 0, 255)
    # As radiologists hang images: head or front up; to the left the patient's right, or the front in a side view.
    rows: NDArray[np.uint8] = np.rint(grey).astype(np.uint8).T[::-1, ::-1]
    return rows
