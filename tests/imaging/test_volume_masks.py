"""Masks of volumes: on the volume's grid, in any order of axes, and back onto the grid that was uploaded."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from continual.domain.errors import UnreadableImageError
from continual.domain.samples import IGNORED, CleanImage, QuarantineEntry
from continual.imaging import (
    ImageSource,
    clean_images,
    decode_volume,
    decode_volume_mask,
    encode_volume_mask,
    mask_on_grid,
)

AFFINE = np.diag([0.7, 0.9, 2.5, 1.0])
SHAPE = (18, 20, 16)
MaskedSource = Callable[..., ImageSource]


def organ(value: float = 1) -> np.ndarray:
    """A body that no turn or mirror brings onto itself."""
    classes = np.zeros(SHAPE, dtype=np.float64)
    classes[2:9, 4:8, 5:15] = value
    classes[2:4, 4:12, 5:7] = value
    return classes


def saved(voxels: np.ndarray, affine: np.ndarray = AFFINE, axes: str = "RAS") -> bytes:
    image = nib.Nifti1Image(voxels, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    data: bytes = image.as_reoriented(turn).to_bytes()
    return data


def volume(axes: str = "RAS") -> bytes:
    return saved(np.random.default_rng(5).integers(0, 900, size=SHAPE).astype(np.int16), axes=axes)


@pytest.fixture
def masked(tmp_path: Path, source_of: Callable[..., ImageSource]) -> MaskedSource:
    """A source of a volume with the mask's bytes and, perhaps, the field of view's."""

    def make(mask: bytes, field_of_view: bytes | None = None, scan: bytes | None = None) -> ImageSource:
        given: dict[str, Any] = {}
        for name, data in (("mask", mask), ("field_of_view", field_of_view)):
            if data is not None:
                given[name] = tmp_path / f"{name}-of-Doe.nii"
                given[name].write_bytes(data)
        return source_of(scan or volume(), **given)

    return make


def stored(source: ImageSource) -> np.ndarray:
    (clean,) = clean_images([source], b"key")
    assert isinstance(clean, CleanImage), clean
    assert clean.mask_data is not None
    mask = decode_volume_mask(clean.mask_data)
    assert (mask.dtype, mask.shape) == (np.uint8, (clean.width, clean.height, clean.depth))
    return mask


def reason(source: ImageSource) -> str:
    (held,) = clean_images([source], b"key")
    assert isinstance(held, QuarantineEntry), held
    assert "Doe" not in held.reason
    return held.reason


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL", "AIR"])
@pytest.mark.parametrize("scan", ["RAS", "LAS", "PIR"])
def test_a_mask_lies_on_its_volume_whatever_axes_either_file_has(axes: str, scan: str, masked: MaskedSource) -> None:
    np.testing.assert_array_equal(stored(masked(saved(organ(), axes=axes), scan=volume(scan))), organ())


@pytest.mark.parametrize(("value", "number"), [(1, 1), (2, 2), (254, 1), (255, 1), (3, 3)])
def test_values_mean_what_they_mean_in_masks_of_pictures(value: int, number: int, masked: MaskedSource) -> None:
    np.testing.assert_array_equal(stored(masked(saved(organ(value)))), organ(number))


def test_outside_the_field_of_view_a_mask_is_ignored(masked: MaskedSource) -> None:
    seen = np.zeros(SHAPE, dtype=np.uint8)
    seen[:, 5:] = 1
    mask = stored(masked(saved(organ()), saved(seen, axes="LPS")))
    assert (mask[:, :5] == IGNORED).all()
    np.testing.assert_array_equal(mask[:, 5:], organ()[:, 5:])
    assert "the field of view is empty" in reason(masked(saved(organ()), saved(seen * 0)))


def moved(voxels: float, axis: int = 0) -> np.ndarray:
    """The affine of a grid that lies off by a share of one voxel."""
    affine = AFFINE.copy()
    affine[axis, 3] = voxels * AFFINE[axis, axis]
    return affine


SOFT = organ()
SOFT[2, 4, 5] = 0.5
REFUSED = {
    "another shape": (saved(organ()[1:]), r"the mask has 17 x 20 x 16 voxels of 0.7 x 0.9 x 2.5 mm, the volume 18 x"),
    "another spacing": (saved(organ(), AFFINE * 1.1), "0.77 x 0.99 x 2.75 mm.*send the mask drawn on this volume"),
    "another place": (saved(organ(), moved(2)), r"1\.4 mm off"),
    "half a voxel off": (saved(organ(), moved(0.5)), r"0\.35 mm off"),
    "left for right": (saved(organ(), np.diag([-0.7, 0.9, 2.5, 1])), r"mm off"),
    "a soft edge": (saved(SOFT), "holds the value 0.5, whole numbers"),
    "a number below 0": (saved(organ(-1)), "holds the value -1"),
    "no number": (saved(organ(np.nan)), "holds the value nan"),
    "too large a number": (saved(organ(70000)), "holds the value 70000"),
    "nothing but outside": (saved(organ() * 0 + 255), "every pixel of the mask is 255"),
    "several volumes": (saved(np.stack([organ()] * 2, axis=-1)), "18 x 20 x 16 x 2.*one volume"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_that_cannot_be_used_holds_its_volume_back(what: str, masked: MaskedSource) -> None:
    mask, why = REFUSED[what]
    assert re.search(why, reason(masked(mask))), reason(masked(mask))


def test_rounding_noise_of_a_header_is_no_other_grid(masked: MaskedSource) -> None:
    np.testing.assert_array_equal(stored(masked(saved(organ(), moved(0.01) * (1 + 1e-6)))), organ())


def test_a_picture_is_no_mask_of_a_volume(masked: MaskedSource, picture_bytes: Callable[..., bytes]) -> None:
    assert "the mask is no NIfTI file" in reason(masked(picture_bytes()))
    assert "the mask is no PNG" in reason(masked(saved(organ()), scan=picture_bytes()))


def test_a_class_number_beyond_the_adapters_is_held_back_unless_it_may_be_new(masked: MaskedSource) -> None:
    (held,) = clean_images([masked(saved(organ(3)))], b"key", mask_classes=2)
    assert isinstance(held, QuarantineEntry)
    assert "the class number 3, the adapter knows 2" in held.reason


def test_equal_masks_are_equal_files_without_a_word_of_the_source(masked: MaskedSource) -> None:
    first, second = (next(iter(clean_images([masked(saved(organ(), axes=axes))], b"key"))) for axes in ("RAS", "PIL"))
    assert isinstance(first, CleanImage)
    assert isinstance(second, CleanImage)
    assert first.mask_data == second.mask_data == encode_volume_mask(organ().astype(np.uint8), (0.7, 0.9, 2.5))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL", "AIR"])
def test_an_answer_lies_on_the_grid_that_was_uploaded(axes: str) -> None:
    uploaded = volume(axes)
    answer = nib.Nifti1Image.from_bytes(
        _gunzipped(mask_on_grid(organ().astype(np.uint8), decode_volume(uploaded).grid))
    )
    asked = nib.Nifti1Image.from_bytes(uploaded)
    np.testing.assert_allclose(answer.affine, asked.affine, atol=1e-5)
    assert (answer.shape, answer.get_data_dtype()) == (asked.shape, np.uint8)
    np.testing.assert_array_equal(nib.as_closest_canonical(answer).get_fdata(), organ())


def test_a_stored_mask_with_impossible_numbers_is_not_read() -> None:
    with pytest.raises(UnreadableImageError, match="the value 300, at most 255"):
        decode_volume_mask(saved(organ(300)))


def _gunzipped(data: bytes) -> bytes:
    return gzip.decompress(data)
