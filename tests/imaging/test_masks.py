"""Masks become class numbers of the image's own pixels, or the image is held back with the reason."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from continual.domain.errors import UnreadableImageError
from continual.domain.samples import IGNORED, CleanImage, QuarantineEntry
from continual.imaging import ImageSource, clean_images, decode_mask, encode_mask

KEY = b"key"
SIDE = 32
WHERE = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)

MaskedSource = Callable[..., ImageSource]


def saved(values: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def thirds(*values: int) -> np.ndarray:
    """Each value on an equal run of pixels."""
    return np.array(values, dtype=np.uint8)[WHERE * len(values) // WHERE.size]


@pytest.fixture
def masked(tmp_path: Path, picture_bytes: Callable[..., bytes], source_of: Callable[..., ImageSource]) -> MaskedSource:
    """A source of a textured picture of 32 x 32 with the mask's bytes and, perhaps, the field of view's."""

    def make(mask: bytes, field_of_view: bytes | None = None, picture: bytes | None = None) -> ImageSource:
        (tmp_path / "mask-of-Doe.png").write_bytes(mask)
        seen = None
        if field_of_view is not None:
            seen = tmp_path / "seen-of-Doe.png"
            seen.write_bytes(field_of_view)
        mask_path = tmp_path / "mask-of-Doe.png"
        return source_of(picture or picture_bytes(), mask=mask_path, field_of_view=seen)

    return make


def stored(source: ImageSource) -> np.ndarray:
    (clean,) = clean_images([source], KEY)
    assert isinstance(clean, CleanImage), clean
    assert clean.mask_data is not None
    image = Image.open(io.BytesIO(clean.mask_data))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (clean.width, clean.height))
    return np.asarray(image)


def reason(source: ImageSource) -> str:
    (entry,) = clean_images([source], KEY)
    assert isinstance(entry, QuarantineEntry), entry
    assert "; " in entry.reason
    assert "Doe" not in entry.reason
    return entry.reason


def test_an_image_without_a_mask_has_none(picture_bytes, source_of) -> None:
    (clean,) = clean_images([source_of(picture_bytes())], KEY)
    assert clean.mask_data is None


@pytest.mark.parametrize("white", [1, 128, 200, 255])
def test_black_and_white_is_background_and_class_one(masked: MaskedSource, white: int) -> None:
    np.testing.assert_array_equal(stored(masked(saved(thirds(0, white)))), thirds(0, 1))


@pytest.mark.parametrize(
    "shape",
    [
        lambda grey: Image.fromarray(grey).convert("1"),
        lambda grey: Image.fromarray(grey).convert("RGB"),
        lambda grey: Image.fromarray(grey).convert("RGBA"),
        lambda grey: Image.fromarray(grey).convert("LA"),
        lambda grey: Image.fromarray(grey).convert("P"),
        lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    ],
    ids=["1 bit", "RGB", "RGBA", "grey and alpha", "grey palette", "16 bit"],
)
def test_one_black_and_white_picture_is_one_mask_in_every_kind_of_png(masked: MaskedSource, shape) -> None:
    np.testing.assert_array_equal(stored(masked(saved(shape(thirds(0, 255))))), thirds(0, 1))


def test_class_numbers_stay_as_they_are(masked: MaskedSource) -> None:
    for values in (thirds(0, 1, 2), thirds(0, 2), thirds(0, 1, IGNORED), thirds(3, 7), thirds(0), thirds(254, 2)):
        np.testing.assert_array_equal(stored(masked(saved(values))), values)


def test_colours_of_a_palette_are_paint_and_its_places_the_classes(masked: MaskedSource) -> None:
    painted = Image.fromarray(thirds(0, 1, 2)).convert("L")
    painted = Image.frombytes("P", painted.size, painted.tobytes())
    painted.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
    np.testing.assert_array_equal(stored(masked(saved(painted))), thirds(0, 1, 2))


def test_pixels_outside_the_field_of_view_are_ignored_whatever_the_mask_says(masked: MaskedSource) -> None:
    for inside in (1, 255):
        found = stored(masked(saved(thirds(0, 255, 0, 255)), saved(thirds(0, 0, inside, inside))))
        np.testing.assert_array_equal(found, thirds(IGNORED, IGNORED, 0, 1))


def test_a_stored_mask_is_read_back_as_it_was_packed_and_equal_masks_are_equal_bytes() -> None:
    mask = thirds(0, 1, 254, IGNORED)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)
    assert encode_mask(mask) == encode_mask(mask.copy())
    with pytest.raises(UnreadableImageError, match="at most 255"):
        decode_mask(saved(np.full((4, 4), 300, dtype=np.uint16)))


def test_nothing_but_pixels_is_kept_of_a_masks_file(masked: MaskedSource) -> None:
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Patient", "Doe^Jane")
    (clean,) = clean_images([masked(saved(thirds(0, 255), pnginfo=notes, dpi=(72, 72)))], KEY)
    assert isinstance(clean, CleanImage)
    assert clean.mask_data == encode_mask(thirds(0, 1))
    assert b"Doe" not in clean.mask_data


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (b"", "the mask is no PNG (0 bytes)"),
        (b"not a picture", "the mask is no PNG"),
        (saved(thirds(0, 255), "JPEG"), "the mask is no PNG"),
        (saved(thirds(0, 255))[:60], "the mask cannot be decoded"),
        (saved(thirds(0, 255)[:, :24]), "the mask is 24 x 32 pixels, the image 32 x 32"),
        (saved(np.stack([thirds(0, 255), thirds(0, 9), thirds(0, 0)], axis=-1)), "is coloured"),
        (saved(np.stack([thirds(0, 0)] * 3 + [thirds(0, 255)], axis=-1)), "partly transparent"),
        (saved((WHERE % 200).astype(np.uint8)), "200 different values"),
        (saved(thirds(0, 1, 2).astype(np.uint16) * 300), "class number 300, at most 254"),
        (saved(thirds(IGNORED)), "every pixel of the mask is 255"),
    ],
)
def test_a_mask_that_cannot_be_used_holds_its_image_back(masked: MaskedSource, mask: bytes, told: str) -> None:
    assert told in reason(masked(mask))


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (b"GIF89a", "the field of view is no PNG"),
        (saved(thirds(255)[:16]), "the field of view is 32 x 16 pixels, the image 32 x 32"),
        (saved(thirds(0)), "the field of view is empty"),
    ],
)
def test_a_field_of_view_that_cannot_be_used_holds_its_image_back(masked: MaskedSource, seen: bytes, told: str) -> None:
    assert told in reason(masked(saved(thirds(0, 255)), seen))


def test_a_class_number_that_the_adapter_never_saw_is_held_back(masked: MaskedSource) -> None:
    source = masked(saved(thirds(0, 1, 2)))
    (entry,) = clean_images([source], KEY, mask_classes=1)
    assert isinstance(entry, QuarantineEntry)
    assert "class number 2, the adapter knows 1; correct it, or allow new classes" in entry.reason
    assert isinstance(next(clean_images([source], KEY, mask_classes=2)), CleanImage)


def test_a_mask_that_has_vanished_holds_its_image_back(masked: MaskedSource) -> None:
    source = masked(saved(thirds(0, 255)))
    assert source.mask is not None
    source.mask.unlink()
    assert "the mask's file cannot be read (No such file" in reason(source)


def test_an_image_turned_by_its_header_and_a_mask_that_is_not_are_held_back(masked: MaskedSource) -> None:
    # The sizes agree, so nothing but the header tells that the mask would lie on the wrong pixels.
    turned = Image.Exif()
    turned[0x0112] = 3
    picture = np.random.default_rng(4).integers(30, 220, size=(SIDE, SIDE, 3), dtype=np.uint8)
    upside_down = saved(picture, exif=turned.tobytes())
    assert "EXIF orientation 3 and the mask by 1" in reason(masked(saved(thirds(0, 255)), picture=upside_down))
    both = masked(saved(thirds(0, 255), exif=turned.tobytes()), picture=upside_down)
    np.testing.assert_array_equal(stored(both), thirds(0, 1)[::-1, ::-1])
