"""DICOM bytes to a decoded image, through pydicom; knows nothing of folders, sites, labels or PNG.

Of a multi-frame image the middle frame is taken. Every limit is checked against the header before pixels are decoded,
and a deflated dataset is inflated to 64 MiB at most. Nothing that a header says is quoted in an error.
"""

import io
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pydicom
from jaxtyping import UInt8
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from continual.domain.errors import UnreadableImageError
from continual.imaging.decoded import MAX_SIDE, DecodedImage
from continual.imaging.dicom_grey_levels import to_grey_levels
from continual.imaging.dicom_tags import HeaderView, acquired_month, acquisition_tags, transfer_syntax_name
from continual.imaging.rasters import quiet_readers, too_large

MAX_INFLATED_BYTES = 64 * 1024 * 1024
"""Largest deflated dataset that is inflated; a 261 kB file can claim 512 MB."""
MAX_PIXELS = 64 * 1024 * 1024
"""Most pixels of one frame that are decoded."""

_PREAMBLE_AND_PREFIX_BYTES = 132
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What a folder listing needs of a file; raw identifiers, not to leave this room.

    `is_image` is False for a directory, report, plan or presentation state: files that hold no pixels by design.
    """

    sop_instance_uid: str | None
    subject: str | None
    is_image: bool


def decode_dicom(data: bytes) -> DecodedImage:
    """Pixels (8-bit RGB), acquisition tags and raw identifiers of a DICOM file.

    Raises UnreadableImageError when the header or the pixels cannot be read, are missing, or exceed the limits.
    """
    with _quiet_pydicom():
        dataset, syntax = _at_the_door("header", lambda: _read(io.BytesIO(data), pixels=True))
        frame, height, width = _at_the_door("image description", lambda: _check_size(dataset))
        view = HeaderView(dataset, frame)
        _at_the_door("transfer syntax", lambda: _check_decoder(dataset))
        stored = _at_the_door("pixel data", lambda: np.asarray(pixel_array(dataset, index=frame)))
        pixels, mapping = _at_the_door("grey levels", lambda: _to_rgb(stored, dataset, view))
        if pixels.shape != (height, width, 3):
            raise UnreadableImageError(
                f"the pixels are {pixels.shape[1]} x {pixels.shape[0]}, the header says {width} x {height}; "
                "export the image again"
            )
        tags = acquisition_tags(view, mapping, transfer_syntax_name(syntax))
        return DecodedImage(
            pixels=pixels,
            tags=tags,
            subject=view.text("PatientID"),
            acquired_at=acquired_month(view),
            sop_instance_uid=view.text("SOPInstanceUID"),
        )


def read_header(stream: BinaryIO) -> DicomHeader:
    """Identifiers of an open DICOM file, without its pixels; UnreadableImageError when the header cannot be read."""
    with _quiet_pydicom():
        dataset, _syntax = _at_the_door("header", lambda: _read(stream, pixels=False))
        view = HeaderView(dataset, 0)
        has_pixels = view.number("Rows") is not None
        sop_class = pydicom.uid.UID(view.text("SOPClassUID") or "")
        meta_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        # A damaged image whose header ends before Rows is still offered to the decoder, which says what is wrong.
        is_image = has_pixels or not sop_class or "Image Storage" in sop_class.name
        return DicomHeader(
            sop_instance_uid=view.text("SOPInstanceUID"),
            subject=view.text("PatientID"),
            is_image=is_image and meta_class != MediaStorageDirectoryStorage,
        )


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Silences warnings and pydicom's logger: both quote header values, and those can name a patient."""
    logger = logging.getLogger("pydicom")
    with quiet_readers():
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


def _at_the_door(what: str, step: Callable[[], _Result]) -> _Result:
    """The step's result; anything pydicom raises becomes UnreadableImageError."""
    try:
        return step()
    except UnreadableImageError:
        raise
    # Pydicom converts values lazily and through plugins: ValueError, TypeError, KeyError, AttributeError, EOFError,
    # struct.error, zlib.error, RecursionError, NotImplementedError, pillow's own and MemoryError were all seen or can
    # be reached. `from None`, because their texts quote header values.
    except Exception as error:  # noqa: BLE001
        raise UnreadableImageError(
            f"the DICOM {what} cannot be read ({type(error).__name__}): damaged, truncated or not standard; "
            "export the image again, uncompressed if possible"
        ) from None


def _read(stream: BinaryIO, pixels: bool) -> tuple[Any, str | None]:
    """The dataset, plain if it was deflated, and the transfer syntax the file came in."""
    stream.seek(_PREAMBLE_AND_PREFIX_BYTES)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return pydicom.dcmread(stream, stop_before_pixels=not pixels, force=False), syntax
    dataset = read_dataset(io.BytesIO(_inflate(stream.read())), False, True)
    # It is plain now, and only as such does pydicom hand out its pixels.
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = pydicom.dataset.FileMetaDataset(meta)
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return dataset, syntax


def _inflate(deflated: bytes) -> bytes:
    # pydicom inflates without a bound, even to read a header only.
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(deflated, MAX_INFLATED_BYTES + 1)
    if len(inflated) > MAX_INFLATED_BYTES:
        raise UnreadableImageError(
            f"the deflated dataset exceeds {MAX_INFLATED_BYTES // 2**20} MiB when inflated; send it uncompressed"
        )
    return inflated


def _check_size(dataset: Any) -> tuple[int, int, int]:
    """Number of the middle frame, height and width, all from the header; refuses what is missing or too large."""
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableImageError("the DICOM file holds no pixel data; send image objects only")
    height, width = int(dataset.Rows), int(dataset.Columns)
    if height < 1 or width < 1:
        raise UnreadableImageError(f"the DICOM image is {width} x {height} pixels; export it again")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise too_large(height, width)
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    return frames // 2, height, width


def _check_decoder(dataset: Any) -> None:
    """Refuses a transfer syntax that nothing installed can decode, saying so instead of calling the file damaged."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnreadableImageError("the DICOM file names no transfer syntax; export it again with complete file meta")
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:  # pydicom's word for a syntax that it knows no decoder of, installed or not
        available = False
    if not available:
        raise UnreadableImageError(
            f"no decoder is installed for transfer syntax {transfer_syntax_name(syntax)}; send Explicit VR Little "
            "Endian, or install the pydicom plugin for it (python-gdcm or pylibjpeg)"
        )


def _to_rgb(stored: np.ndarray, dataset: Any, view: HeaderView) -> tuple[UInt8[np.ndarray, "height width 3"], str]:
    photometric = view.text("PhotometricInterpretation") or ""
    if photometric == "PALETTE COLOR":
        return _from_palette(stored, dataset), "palette"
    if stored.ndim == 3 and stored.shape[-1] == 3:
        # pydicom has turned YBR into RGB already.
        return _colour_to_8_bit(stored, int(view.number("BitsStored") or 8)), "colour"
    if stored.ndim != 2 or not photometric.startswith("MONOCHROME"):
        raise UnreadableImageError("the DICOM image is neither grey nor RGB, YBR or palette colour; export it as one")
    levels, mapping = to_grey_levels(stored, dataset, view)
    if photometric == "MONOCHROME1":
        # After the VOI transformation, as the standard's pipeline has it: inverting first would move the window.
        levels = 255 - levels
    return np.repeat(levels[..., np.newaxis], 3, axis=2), mapping


def _from_palette(stored: np.ndarray, dataset: Any) -> UInt8[np.ndarray, "height width 3"]:
    colour = apply_color_lut(stored, dataset)[..., :3]
    is_big_endian = dataset.original_encoding[1] is False
    if is_big_endian and colour.dtype.itemsize == 2 and "RedPaletteColorLookupTableData" in dataset:
        # pydicom 3.0 reads a plain table's words as little endian whatever the file's order.
        colour = colour.byteswap()
    return _colour_to_8_bit(colour, int(dataset.RedPaletteColorLookupTableDescriptor[2]))


def _colour_to_8_bit(colour: np.ndarray, bits: int) -> UInt8[np.ndarray, "height width 3"]:
    if bits == 8:
        return np.ascontiguousarray(np.clip(colour, 0, 255), dtype=np.uint8)
    scaled = colour.astype(np.float32) * (255.0 / (2.0**bits - 1.0))
    levels: UInt8[np.ndarray, "height width 3"] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return levels
