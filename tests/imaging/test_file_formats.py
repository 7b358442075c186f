"""Formats told by their first bytes, and nothing but one typed error for what cannot be read."""

import gzip
import io
import struct
from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from continual.domain.errors import UnreadableImageError
from continual.imaging import decode_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_a_png_comes_through_without_loss(picture_bytes: Callable[..., bytes]) -> None:
    data = picture_bytes(seed=3)
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert decoded.tags == {"format": "PNG", "width": 32.0, "height": 32.0, "channels": 3.0}
    assert (decoded.subject, decoded.acquired_at, decoded.sop_instance_uid) == (None, None, None)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("L", np.uint8([[0, 100], [200, 255]]), [0, 100, 200, 255]),
        # 16 bits keep their high byte: pillow's own conversion would clip all but the first to 255.
        ("I;16", np.uint16([[0, 25700], [51400, 65535]]), [0, 100, 200, 255]),
        ("1", np.uint8([[0, 1], [1, 0]]) * 255, [0, 255, 255, 0]),
    ],
)
def test_grey_pictures_of_any_depth_become_8_bit_rgb(mode: str, values: np.ndarray, expected: list[int]) -> None:
    image = Image.fromarray(values).convert("1") if mode == "1" else Image.fromarray(values)
    assert image.mode == mode
    pixels = decode_image(encoded(image, "PNG")).pixels
    assert pixels.shape == (2, 2, 3)
    assert pixels[..., 0].ravel().tolist() == expected
    assert pixels[..., 2].ravel().tolist() == expected


def test_a_photograph_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))
    assert decode_image(encoded(sideways, "JPEG", exif=exif)).pixels.shape == (40, 20, 3)


def test_a_nifti_volume_is_no_picture() -> None:
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype=np.int16), np.eye(4)).to_bytes()
    for data in (volume, gzip.compress(volume, mtime=0)):
        with pytest.raises(UnreadableImageError, match="a NIfTI volume, one picture is wanted"):
            decode_image(data)


@pytest.mark.parametrize(
    "data", [b"hello, world", b"\x1f\x8b broken gzip", gzip.compress(b"text", mtime=0), bytes(200), b"GIF89a"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="no image known here"):
        decode_image(data)


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(UnreadableImageError, match="0 bytes"):
        decode_image(b"")


def test_a_picture_above_the_side_limit_is_refused_before_it_is_decoded() -> None:
    thin = encoded(Image.new("L", (9000, 2)), "PNG")
    with pytest.raises(UnreadableImageError, match="9000 x 2 pixels, the longest side allowed is 8192"):
        decode_image(thin)
    # A header that claims 60,000 x 60,000 pixels: pillow's own bomb check speaks first.
    bomb = thin[:16] + struct.pack(">II", 60000, 60000) + thin[24:]
    with pytest.raises(UnreadableImageError):
        decode_image(bomb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "DICOM"])
def test_a_truncated_file_is_refused(kind: str, whole_files: dict[str, bytes]) -> None:
    data = whole_files[kind]
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImageError):
            decode_image(data[: int(len(data) * share)])


def test_a_transfer_syntax_that_is_no_text_is_refused(whole_files: dict[str, bytes]) -> None:
    numbers = whole_files["DICOM"].replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00US")
    with pytest.raises(UnreadableImageError, match="the DICOM transfer syntax cannot be read"):
        decode_image(numbers)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "DICOM"]), draw=st.data())
def test_damage_anywhere_gives_an_image_or_the_one_typed_error(
    whole_files: dict[str, bytes], kind: str, draw: st.DataObject
) -> None:
    damaged = bytearray(whole_files[kind])
    # The first bytes name the format; damage behind them is what reaches the readers.
    places = st.integers(min_value=8, max_value=len(damaged) - 1)
    for at, value in draw.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=12)).items():
        damaged[at] = value
    try:
        decoded = decode_image(bytes(damaged[: draw.draw(places)] if draw.draw(st.booleans()) else damaged))
    except UnreadableImageError:
        return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape[2] == 3
