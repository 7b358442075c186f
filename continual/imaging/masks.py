"""Masks: a class number for every pixel, read, checked and packed; knows nothing of subjects, folders or models.

A file is turned into class numbers by its values alone: a picture of black and one bright grey is a binary mask, and
any other holds its class numbers as they are. Nothing but pixels is kept.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from continual.domain.errors import QualityError, UnreadableImageError
from continual.domain.samples import IGNORED, MOST_MASK_CLASSES
from continual.imaging.decoded import DecodedImage
from continual.imaging.decoding import ImageFormat, sniff_format

BRIGHT = 128
"""The least value that, alone beside 0, is the white of a black-and-white picture and not a class number."""
MOST_VALUES = 64
"""More different values than this are the smoothed edges of a picture, not classes."""

Mask = UInt8[np.ndarray, "height width"]
Values = Int64[np.ndarray, "height width"]


def mask_for(
    image: DecodedImage, mask: bytes, field_of_view: bytes | None = None, most_classes: int = MOST_MASK_CLASSES
) -> Mask:
    """Class numbers for every pixel of an image, `IGNORED` where the field of view, if given, is 0.

    Both files are PNG with one value per pixel, of the image's size and orientation. Raises UnreadableImageError or
    QualityError for any other file, for a class number above `most_classes`, and for a mask that leaves no pixel to
    learn from.
    """
    classes = class_numbers(_values_for(image, mask, "mask"), most_classes)
    if field_of_view is not None:
        classes = outside_ignored(classes, _values_for(image, field_of_view, "field of view") != 0)
    return require_seen(classes)


def decode_mask(png: bytes) -> Mask:
    """Class numbers of a stored mask, as `encode_mask` packed them; UnreadableImageError on any other file."""
    from continual.imaging.rasters import decode_values

    values = decode_values(png, "mask").values
    if values.max() > IGNORED:
        raise UnreadableImageError(f"the mask holds the value {values.max()}, at most {IGNORED} may be; store it anew")
    classes: Mask = values.astype(np.uint8)
    return classes


def encode_mask(mask: Mask) -> bytes:
    """Lossless 8-bit single-channel PNG without metadata; equal masks give equal bytes with the same libraries."""
    from continual.imaging.rasters import encode_png

    return encode_png(mask)


def _values_for(image: DecodedImage, data: bytes, what: str) -> Values:
    """What a file says about each pixel of the image; refuses one that does not lie on the image as it is stored."""
    from continual.imaging.rasters import decode_values

    if sniff_format(data) is not ImageFormat.PNG:
        raise UnreadableImageError(
            f"the {what} is no PNG ({len(data)} bytes); save it as PNG, as other formats blur or drop its values"
        )
    found = decode_values(data, what)
    if found.orientation != image.orientation:
        raise QualityError(
            f"the image is turned by its EXIF orientation {image.orientation} and the {what} by {found.orientation}; "
            "export both upright, without EXIF"
        )
    height, width = image.pixels.shape[:2]
    if found.values.shape != (height, width):
        raise QualityError(
            f"the {what} is {found.values.shape[1]} x {found.values.shape[0]} pixels, the image {width} x {height}; "
            f"send the {what} that was drawn on this image, or resample it to the image's size"
        )
    return found.values


def class_numbers(values: Int64[np.ndarray, "*place"], most_classes: int) -> UInt8[np.ndarray, "*place"]:
    """What a file's values, none below 0, mean as class numbers; QualityError where they are none.

    0 and one value of `BRIGHT` or more is a binary mask, whose class is 1.
    """
    present = np.flatnonzero(np.bincount(values.ravel()))
    highest = int(present[-1])
    if len(present) == 2 and present[0] == 0 and highest >= BRIGHT:
        return (values > 0).astype(np.uint8)
    if len(present) > MOST_VALUES:
        raise QualityError(
            f"the mask holds {len(present)} different values, at most {MOST_VALUES} may be: its edges are smoothed; "
            "export it without smoothing, one number per class"
        )
    unusable = [int(value) for value in present if value > most_classes and value != IGNORED]
    if unusable:
        raise QualityError(_too_many(unusable[0], most_classes))
    return values.astype(np.uint8)


def outside_ignored(
    classes: UInt8[np.ndarray, "*place"], inside: Bool[np.ndarray, "*place"]
) -> UInt8[np.ndarray, "*place"]:
    """The class numbers, `IGNORED` outside; QualityError when nothing lies inside."""
    if not inside.any():
        raise QualityError("the field of view is empty: all its pixels are 0; mark what lies inside by another value")
    return np.where(inside, classes, np.uint8(IGNORED))


def require_seen(classes: UInt8[np.ndarray, "*place"]) -> UInt8[np.ndarray, "*place"]:
    """The class numbers themselves, some of which count; QualityError when all are `IGNORED`."""
    if np.all(classes == IGNORED):
        raise QualityError(
            f"every pixel of the mask is {IGNORED}, which means outside the field of view; send the mask of this image"
        )
    return classes


def _too_many(number: int, most_classes: int) -> str:
    if number <= MOST_MASK_CLASSES:
        return (
            f"the mask holds the class number {number}, the adapter knows {most_classes}; correct it, or allow new "
            "classes with --new-classes"
        )
    return (
        f"the mask holds the class number {number}, at most {MOST_MASK_CLASSES} may be and {IGNORED} outside the field "
        "of view; number the classes from 1"
    )
