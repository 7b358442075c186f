"""Volumes: NIfTI files made here, whole, turned, damaged and hostile; what is read, refused and stored of them."""

import gzip
import struct
import zlib
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.digests import sha256_volume
from continual.domain.errors import UnreadableImageError
from continual.imaging import decode_volume, encode_volume
from continual.imaging import nifti as limits

SPACING = (0.703125, 0.9, 2.5)
ORIENTATIONS = ("RAS", "LPS", "LAS", "ASR", "SPL", "PIR", "IRA")


def texture(shape: tuple[int, int, int] = (18, 20, 16)) -> np.ndarray:
    return np.random.default_rng(3).integers(-50, 900, size=shape).astype(np.int16)


def nifti(voxels: np.ndarray, affine: np.ndarray | None = None, kind: Any = nib.Nifti1Image, **fields: Any) -> bytes:
    """Bytes of a file around voxels in RAS order of SPACING, unless an affine says otherwise; `fields` override."""
    image = kind(voxels, np.diag([*SPACING, 1.0]) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    data: bytes = image.to_bytes()
    return data


def turned(data: bytes, axes: str) -> bytes:
    """The same volume with its voxels stored along other axes."""
    image = nib.Nifti1Image.from_bytes(data)
    here, there = nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    stored: bytes = image.as_reoriented(nib.orientations.ornt_transform(here, there)).to_bytes()
    return stored


def patched(data: bytes, offset: int, layout: str, *values: Any) -> bytes:
    """The file with some bytes of its header written over."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, *values)
    return bytes(changed)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_a_volume_stored_along_any_axes_has_one_content(axes: str) -> None:
    plain = decode_volume(nifti(texture()))
    found = decode_volume(turned(nifti(texture()), axes))
    np.testing.assert_array_equal(found.values, texture().astype(np.float32))
    assert found.spacing_mm == plain.spacing_mm == (0.70312, 0.9, 2.5)
    assert found.tags["stored_axes"] == axes
    assert sha256_volume(found.values, found.spacing_mm) == sha256_volume(plain.values, plain.spacing_mm)


def test_the_patients_right_front_and_head_lie_at_the_far_ends() -> None:
    voxels = texture() * 0
    voxels[0, 0, 0] = 7  # in a file of LPS axes: the right, the front, the feet
    found = decode_volume(nifti(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])))
    assert found.values[-1, -1, 0] == 7
    assert found.values.sum() == 7


def test_a_tilted_grid_keeps_its_voxels_and_its_spacing() -> None:
    turn = np.radians(13.6)
    tilt = np.array(
        [[1, 0, 0, 0], [0, np.cos(turn), -np.sin(turn), 0], [0, np.sin(turn), np.cos(turn), 0], [0, 0, 0, 1]]
    )
    found = decode_volume(nifti(texture(), tilt @ np.diag([*SPACING, 1])))
    np.testing.assert_array_equal(found.values, texture())
    assert (found.spacing_mm, found.tags["oblique_degrees"]) == ((0.70312, 0.9, 2.5), 13.6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:])]
)
def test_both_versions_are_read_plain_gzipped_and_in_several_members(kind: Any, pack: Callable[[bytes], bytes]) -> None:
    np.testing.assert_array_equal(decode_volume(pack(nifti(texture(), kind=kind))).values, texture())


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_every_real_voxel_type_and_byte_order_gives_the_same_values(kind: str) -> None:
    voxels = np.abs(texture()) % 200
    header = nib.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(np.dtype(kind))
    image = nib.Nifti1Image(voxels.astype(kind), np.diag([*SPACING, 1]), header)
    found = decode_volume(image.to_bytes())
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, voxels)


def test_slope_and_intercept_are_applied_and_a_slope_of_zero_means_none() -> None:
    scaled = patched(nifti(texture()), 112, "<2f", 0.5, -1024)
    np.testing.assert_array_equal(decode_volume(scaled).values, texture() * 0.5 - 1024)
    np.testing.assert_array_equal(decode_volume(patched(scaled, 112, "<2f", 0, -1024)).values, texture())
    with pytest.raises(UnreadableImageError, match="set scl_inter"):
        decode_volume(patched(scaled, 112, "<2f", 0.5, np.nan))


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000), (2, 1), (3, 0.001), (0, 1)])
def test_spacing_is_in_millimetres_whatever_the_header_counts_in(unit: int, factor: float) -> None:
    data = nifti(texture(), np.diag([0.02, 0.03, 0.05, 1]), xyzt_units=unit)
    assert decode_volume(data).spacing_mm == pytest.approx([side * factor for side in (0.02, 0.03, 0.05)], rel=1e-4)


def test_a_fourth_axis_of_one_entry_is_dropped() -> None:
    np.testing.assert_array_equal(decode_volume(nifti(texture()[..., None])).values, texture())


def test_a_qform_alone_tells_the_orientation_and_beside_a_sform_the_sform_counts() -> None:
    image = nib.Nifti1Image(texture(), np.diag([-1.0, -1.0, 2.0, 1.0]))
    image.set_qform(np.diag([-1.0, -1.0, 2.0, 1.0]), code=1)
    image.set_sform(None, code=0)
    found = decode_volume(image.to_bytes())
    assert (found.tags["stored_axes"], found.spacing_mm) == ("LPS", (1, 1, 2))
    np.testing.assert_array_equal(found.values, texture()[::-1, ::-1])
    image.set_sform(np.diag([-1.5, -1.0, 2.0, 1.0]), code=2)
    assert decode_volume(image.to_bytes()).spacing_mm == (1.5, 1, 2)


def test_what_is_stored_is_the_same_volume_and_nothing_else_of_the_header() -> None:
    extension = nib.nifti1.Nifti1Extension("comment", b"seen by Dr Roe")
    image = nib.Nifti1Image(texture(), np.diag([*SPACING, 1]))
    image.header.extensions.append(extension)
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = (
        b"Doe^Jane",
        b"doe.hdr",
        b"19700101",
    )
    volume = decode_volume(image.to_bytes())
    stored = encode_volume(volume)
    packed = gzip.decompress(stored)
    assert not any(word in packed for word in (b"Doe", b"doe", b"1970", b"Roe"))
    assert stored[4:8] == bytes(4)  # no time
    again = decode_volume(stored)
    np.testing.assert_array_equal(again.values, volume.values)
    assert (again.spacing_mm, again.tags["stored_axes"]) == (volume.spacing_mm, "RAS")
    assert encode_volume(again) == stored == encode_volume(decode_volume(turned(image.to_bytes(), "LPS")))
    assert not any("Doe" in str(value) for value in volume.tags.values())


@given(
    st.sampled_from(
        [np.float32(0.1), np.float32(-0.0), np.float32(70000), np.float32(300), np.float32(-3), np.float32(7)]
    )
)
@settings(max_examples=10)
def test_storing_loses_no_value_of_any_size(value: np.float32) -> None:
    voxels = np.full((4, 5, 6), value, dtype=np.float32)
    voxels[1] = 5
    volume = decode_volume(nifti(voxels))
    assert decode_volume(encode_volume(volume)).values.tobytes() == volume.values.tobytes()


@pytest.mark.parametrize("side", [0.703125, 0.5859375, 0.78125, 0.6006944, 0.33203125, 2.5])
def test_rounding_noise_of_a_header_makes_no_other_spacing(side: float) -> None:
    found = {
        decode_volume(nifti(texture(), np.diag([side * (1 + noise), 1, 1, 1]))).spacing_mm
        for noise in (-2e-7, -1e-7, 0, 1e-7, 2e-7)
    }
    assert len(found) == 1
    assert found.pop()[0] == pytest.approx(side, rel=1e-5)


def with_hole() -> np.ndarray:
    voxels = texture().astype(np.float32)
    voxels[2, 3, 4:6] = np.nan, np.inf
    return voxels


WHOLE = nifti(texture())
REFUSED = {
    "nothing": (b"", "no NIfTI file, or cut short"),
    "a header cut short": (WHOLE[:200], "no NIfTI file, or cut short"),
    "voxels cut short": (WHOLE[:-1], r"holds \d+ bytes, its header states \d+"),
    "a gzip cut short": (gzip.compress(WHOLE)[:-9], "damaged or cut short"),
    "a gzip with a wrong checksum": (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged or cut short"),
    "two megabytes too many": (WHOLE + bytes(2**21), "holds more bytes"),
    "several times": (nifti(np.stack([texture()] * 3, axis=-1)), "18 x 20 x 16 x 3.*send one time point"),
    "one slice": (nifti(texture((18, 20, 1))), "18 x 20 x 1 voxels, each side needs 4"),
    "a plane": (nifti(texture()[..., 0]), "18 x 20 voxels, each side needs 4"),
    "no dimensions": (patched(WHOLE, 40, "<h", 0), "0 dimensions"),
    "a negative side": (patched(WHOLE, 42, "<h", -18), "each side needs 4"),
    "voxels that are no number": (nifti(with_hole()), "2 of the volume's 5760 voxels are not finite"),
    "voxels too large for 32 bits": (nifti(np.full((8, 8, 8), 1e39)), "not finite 32-bit numbers"),
    "complex voxels": (nifti(texture().astype(np.complex64)), "data type 32.*convert"),
    "an unknown voxel type": (patched(WHOLE, 70, "<h", 7), "data type 7.*convert"),
    "voxels inside the header": (patched(WHOLE, 108, "<f", 100), "start at byte 100, must be 352"),
    "half of a pair": (WHOLE[:344] + b"ni1\0" + WHOLE[348:], "one half of a pair"),
    "no orientation": (patched(WHOLE, 252, "<2h", 0, 0), "qform and sform code are 0.*left and right"),
    "an orientation without depth": (patched(WHOLE, 312, "<4f", 0, 0, 0, 0), "is no grid"),
    "a spacing of metres": (nifti(texture(), np.diag([2.0, 2, 2, 1]), xyzt_units=1), "must be 1e-05 to 100.0 mm"),
    "a spacing without unit": (nifti(texture(), xyzt_units=5), "is no grid"),
    "two orientations": (patched(WHOLE, 252, "<2h3f", 1, 1, 0, 0, 1), "sform says RAS and its qform"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_volume_is_refused_with_a_remedy(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, reason = REFUSED[what]
    with pytest.raises(UnreadableImageError, match=reason):
        decode_volume(data)
    assert capfd.readouterr() == ("", "")


def test_a_gzip_bomb_is_refused_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zlib.compress(WHOLE + bytes(200_000_000), 9, zlib.MAX_WBITS | 16)
    huge = gzip.compress(patched(WHOLE, 42, "<3h", 1024, 1024, 1024) + bytes(50_000_000))
    asked: list[int] = []
    inflate = limits._unpacked
    monkeypatch.setattr(limits, "_unpacked", lambda data, most: (asked.append(most), inflate(data, most))[1])
    with pytest.raises(UnreadableImageError, match="holds more bytes"):
        decode_volume(bomb)
    with pytest.raises(UnreadableImageError, match="1024 x 1024 x 1024 voxels, at most 134217728"):
        decode_volume(huge)
    assert max(asked) < len(WHOLE) + 2**20 + 2


def test_a_side_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="5000 x 20 x 16 voxels.*4096 a side"):
        decode_volume(patched(WHOLE, 42, "<h", 5000))


@given(st.data())
@settings(max_examples=150)
def test_any_damage_to_a_header_is_an_error_of_ours_or_a_readable_volume(draw: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(draw.draw(st.integers(1, 6))):
        damaged[draw.draw(st.integers(0, 351))] = draw.draw(st.integers(0, 255))
    try:
        volume = decode_volume(bytes(damaged))
    except UnreadableImageError:
        return
    assert np.isfinite(volume.values).all()
    assert min(volume.spacing_mm) > 0
