"""Sources to clean images: read, decode, quality gate, pixel statistics, pseudonym, lossless PNG or NIfTI, mask.

One bad file becomes one quarantine entry and never stops the others. Knows nothing of where clean images are stored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from continual.domain.digests import sha256_bytes, sha256_pixels, sha256_volume
from continual.domain.errors import IntakeError, QualityError, SettingsError, UnreadableImageError
from continual.domain.samples import MOST_MASK_CLASSES, CleanImage, QuarantineEntry, pseudonym
from continual.imaging.decoded import DecodedImage
from continual.imaging.decoding import decode_image
from continual.imaging.masks import encode_mask, mask_for
from continual.imaging.measurements import pixel_statistics
from continual.imaging.quality import check_quality, check_volume
from continual.imaging.sources import ImageSource, file_digest
from continual.imaging.volume_masks import encode_volume_mask, volume_mask_for
from continual.imaging.volume_measurements import voxel_statistics
from continual.imaging.volumes import DecodedVolume, decode_volume, encode_volume, is_volume

MAX_FILE_BYTES = 512 * 1024 * 1024
"""Largest file that is read into memory."""


def clean_images(
    sources: Iterable[ImageSource], key: bytes, mask_classes: int = MOST_MASK_CLASSES
) -> Iterator[CleanImage | QuarantineEntry]:
    """One clean image or one quarantine entry per source, in order, lazily; `key` is the secret of the pseudonyms.

    An image whose mask cannot be used, or holds a class number above `mask_classes`, is held back with it: with the
    file put right it comes in as a whole.
    Nothing yielded holds a name, identifier, UID, path or day: `acquired_at` is cut to the month. Raises SettingsError
    on an empty key, at the call.
    """
    if not key:
        raise SettingsError("the pseudonym key is empty; set a secret of at least 1 byte, the same for every intake")
    return (_clean(source, key, mask_classes) for source in sources)


def _clean(source: ImageSource, key: bytes, mask_classes: int) -> CleanImage | QuarantineEntry:
    try:
        data = read_file(source.path, "file")
        if is_volume(data):
            volume = decode_volume(data)
            cleaned, mask = _standardise_volume(source, volume, key), _volume_mask(source, volume, mask_classes)
        else:
            decoded = decode_image(data)
            cleaned, mask = _standardise(source, decoded, key), _mask(source, decoded, mask_classes)
        return replace(cleaned, mask_data=mask, file_digest=sha256_bytes(data))
    except IntakeError as error:
        return QuarantineEntry(source.site, source.position, file_digest(source.path, source.position), str(error))


def read_file(path: Path, what: str) -> bytes:
    """A file's bytes; UnreadableImageError, without its path, for one that is missing or too large for memory."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableImageError(
                f"the {what} has {size} bytes, at most {MAX_FILE_BYTES} are read; send single frames"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        # Without the error's own text: it quotes the path. ValueError: a NUL in the name.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableImageError(
            f"the {what} cannot be read ({reason}); check that it is there and readable"
        ) from None


def _standardise(source: ImageSource, decoded: DecodedImage, key: bytes) -> CleanImage:
    if decoded.tags.get("burned_in_annotation") == "YES":
        raise QualityError(
            "the header says that annotation is burned into the pixels, which may show the patient's name; black it "
            "out and set BurnedInAnnotation to NO"
        )
    check_quality(decoded.pixels)
    subject = source.subject or decoded.subject
    if not subject:
        raise UnreadableImageError("neither the list nor the image names a subject; fill in the subject or PatientID")
    # Loaded already by decode_image, and kept out of module scope so that importing this room loads no pillow.
    from continual.imaging.rasters import encode_png

    height, width = decoded.pixels.shape[:2]
    return CleanImage(
        digest=sha256_pixels(decoded.pixels),
        site=source.site,
        subject=pseudonym(key, source.site, subject),
        label=source.label,
        data=encode_png(decoded.pixels),
        width=width,
        height=height,
        tags=decoded.tags,
        pixel_statistics=pixel_statistics(decoded.pixels),
        acquired_at=_month(source.acquired_at or decoded.acquired_at),
        split=source.split,
    )


def _standardise_volume(source: ImageSource, volume: DecodedVolume, key: bytes) -> CleanImage:
    check_volume(volume.values)
    if not source.subject:
        raise UnreadableImageError("the list names no subject, and a NIfTI file has none; fill in the subject")
    width, height, depth = volume.values.shape
    return CleanImage(
        digest=sha256_volume(volume.values, volume.spacing_mm),
        site=source.site,
        subject=pseudonym(key, source.site, source.subject),
        label=source.label,
        data=encode_volume(volume),
        width=width,
        height=height,
        depth=depth,
        spacing_mm=volume.spacing_mm,
        tags=volume.tags,
        pixel_statistics=voxel_statistics(volume.values, volume.spacing_mm),
        acquired_at=_month(source.acquired_at),
        split=source.split,
    )


def _mask(source: ImageSource, decoded: DecodedImage, mask_classes: int) -> bytes | None:
    if source.mask is None:
        return None
    mask, seen = _mask_files(source.mask, source.field_of_view)
    return encode_mask(mask_for(decoded, mask, seen, mask_classes))


def _volume_mask(source: ImageSource, volume: DecodedVolume, mask_classes: int) -> bytes | None:
    if source.mask is None:
        return None
    mask, seen = _mask_files(source.mask, source.field_of_view)
    return encode_volume_mask(volume_mask_for(volume, mask, seen, mask_classes), volume.spacing_mm)


def _mask_files(mask: Path, field_of_view: Path | None) -> tuple[bytes, bytes | None]:
    seen = None if field_of_view is None else read_file(field_of_view, "field of view's file")
    return read_file(mask, "mask's file"), seen


def _month(moment: datetime | None) -> datetime | None:
    return None if moment is None else datetime(moment.year, moment.month, 1, tzinfo=UTC)
