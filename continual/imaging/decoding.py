"""Bytes to pixels: sniffs the format by its first bytes, never by a name; knows nothing of folders, sites or labels."""

import zlib
from enum import StrEnum

from continual.domain.errors import UnreadableImageError
from continual.imaging.decoded import DecodedImage

_DICOM_PREAMBLE_BYTES = 128
_NIFTI_HEADER_BYTES = 352


class ImageFormat(StrEnum):
    """What the first bytes say a file is."""

    DICOM = "dicom"
    PNG = "png"
    JPEG = "jpeg"
    NIFTI = "nifti"


def decode_image(data: bytes) -> DecodedImage:
    """Pixels and acquisition tags of one DICOM, PNG or JPEG file given as bytes.

    Raises UnreadableImageError for anything else: empty, truncated, not an image, a volume, or larger than the limits.
    """
    kind = sniff_format(data)
    if kind is ImageFormat.DICOM:
        from continual.imaging.dicom import decode_dicom

        return decode_dicom(data)
    if kind in (ImageFormat.PNG, ImageFormat.JPEG):
        from continual.imaging.rasters import decode_raster

        return decode_raster(data)
    if kind is ImageFormat.NIFTI:
        raise UnreadableImageError("the file is a NIfTI volume, one picture is wanted; send one as PNG, JPEG or DICOM")
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes); export it again")
    raise UnreadableImageError(
        f"the {len(data)} bytes are no image known here; send DICOM with its file header (DICM at byte 128), PNG, JPEG "
        "or NIfTI"
    )


def sniff_format(head: bytes) -> ImageFormat | None:
    """The format that the first 512 bytes or more show, None when it is none of ours."""
    if head[_DICOM_PREAMBLE_BYTES : _DICOM_PREAMBLE_BYTES + 4] == b"DICM":
        return ImageFormat.DICOM
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageFormat.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if _is_nifti(_gunzipped_head(head) if head.startswith(b"\x1f\x8b") else head):
        return ImageFormat.NIFTI
    return None


def _gunzipped_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _NIFTI_HEADER_BYTES)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    # NIfTI-1 keeps its magic at byte 344, NIfTI-2 at byte 4.
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
