"""PNG and JPEG through pillow, in and out; knows nothing of DICOM, subjects or folders.

Nothing but pixels, width, height, format and channels is kept of a file: EXIF, comments and profiles stay behind.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from continual.domain.errors import UnreadableImageError
from continual.imaging.decoded import MAX_SIDE, DecodedImage, Pixels

_COMPRESS_LEVEL = 2  # 3 times quicker than pillow's default and within a tenth of its size on noisy images
_WARNING_FILTERS = threading.Lock()


@dataclass(frozen=True, slots=True)
class StoredValues:
    """One number per pixel, upright, as the file has it; `orientation` as in `DecodedImage`."""

    values: Int64[np.ndarray, "height width"]
    orientation: int


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Silences readers' warnings, which quote header values; a decompression bomb becomes an error.

    One thread at a time: the interpreter's warning filters are shared, and two overlapping savers restore wrongly.
    """
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_raster(data: bytes) -> DecodedImage:
    """Pixels of a PNG or JPEG in its upright orientation; UnreadableImageError when damaged or above the side limit."""
    with quiet_readers():
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            if max(image.size) <= MAX_SIDE:
                tags: dict[str, str | float] = {
                    "format": str(image.format),
                    "width": float(image.width),
                    "height": float(image.height),
                    "channels": float(len(image.getbands())),
                }
                return DecodedImage(pixels=_to_rgb(image), tags=tags, orientation=_orientation(image))
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error and more on damaged files,
        # and their texts can quote the file.
        except Exception as error:  # noqa: BLE001
            kind = type(error).__name__
            raise UnreadableImageError(
                f"the image cannot be decoded ({kind}): damaged, truncated or too large; export it again"
            ) from None
    raise too_large(image.height, image.width)


def decode_values(data: bytes, what: str) -> StoredValues:
    """Numbers that a PNG holds one of per pixel: grey levels of 1 to 16 bits, or places in a palette of colours.

    Colour is taken where its channels are equal. Raises UnreadableImageError, calling the file `what`, when it is
    damaged, above the side limit, or coloured.
    """
    with quiet_readers():
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG",))
            if max(image.size) <= MAX_SIDE:
                image.load()
                orientation = _orientation(image)
                grey = _one_channel(ImageOps.exif_transpose(image))
                if grey is not None:
                    return StoredValues(grey.astype(np.int64), orientation)
        except Exception as error:  # noqa: BLE001  as above
            kind = type(error).__name__
            raise UnreadableImageError(
                f"the {what} cannot be decoded ({kind}): damaged, truncated or too large; export it again as PNG"
            ) from None
    if max(image.size) > MAX_SIDE:
        raise too_large(image.height, image.width)
    raise UnreadableImageError(
        f"the {what} is coloured or partly transparent; save it as a grey PNG with one value per class"
    )


def too_large(height: int, width: int) -> UnreadableImageError:
    """The refusal of an image whose header states a longer side than is decoded."""
    return UnreadableImageError(
        f"the image is {width} x {height} pixels, the longest side allowed is {MAX_SIDE}; cut it into tiles"
    )


def encode_png(pixels: Pixels | UInt8[np.ndarray, "height width"]) -> bytes:
    """Lossless 8-bit PNG without metadata, of RGB or one channel; same pixels, pillow and zlib give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        grey = (np.clip(np.asarray(upright, dtype=np.int64), 0, 65535) // 257).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    stated = image.getexif().get(ExifTags.Base.Orientation, 1)
    return stated if stated in range(1, 9) else 1


def _one_channel(image: Image.Image) -> NDArray[np.generic] | None:
    """The picture's one value per pixel; None when its channels differ or its transparency varies."""
    if image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        # A grey palette is a way to store grey levels; one of colours paints class numbers, which are its places.
        return colours[..., 0] if _grey(colours) else np.asarray(image)
    bands = np.asarray(image)
    if bands.ndim == 2:
        return bands
    colour, transparency = (bands[..., :-1], bands[..., -1:]) if image.mode.endswith("A") else (bands, bands[..., :0])
    return colour[..., 0] if _grey(colour) and (transparency == transparency[:1, :1]).all() else None


def _grey(colours: NDArray[np.generic]) -> bool:
    return bool((colours == colours[..., :1]).all())
