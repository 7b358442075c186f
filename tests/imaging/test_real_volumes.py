"""Real volumes: spinal cords of four institutions with two masks each, and the shapes of adrenal glands."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from continual.domain.samples import CleanImage, QuarantineEntry
from continual.imaging import ImageSource, clean_images, decode_volume, decode_volume_mask, mask_on_grid

RealData = Callable[[str], Path]
CORD_VOXELS = {"sub-10062Ses1": 3579, "sub-10062Ses2": 5121, "sub-9418": 6473, "sub-9604": 3228}


def cords(folder: Path) -> list[ImageSource]:
    """A source per volume with its cord's mask."""
    scans = sorted(folder.glob("*/t2star.nii.gz"))
    return [
        ImageSource(at, scan, "spine", scan.parent.name, None, mask=scan.with_name("cord.nii.gz"))
        for at, scan in enumerate(scans, start=1)
    ]


def test_spinal_cords_come_through_with_their_masks_in_place(real_data: RealData) -> None:
    sources = cords(real_data("spinal_cord"))
    assert len(sources) == 6
    for source, clean in zip(sources, clean_images(sources, b"key"), strict=True):
        assert isinstance(clean, CleanImage), clean
        plain = nib.as_closest_canonical(nib.load(source.path))
        volume, mask = decode_volume(clean.data), decode_volume_mask(clean.mask_data or b"")
        np.testing.assert_array_equal(volume.values, np.asarray(plain.dataobj, dtype=np.float32))
        np.testing.assert_allclose(volume.spacing_mm, plain.header.get_zooms(), rtol=1e-5)
        assert clean.tags["stored_axes"] in ("LAS", "LPS")
        expected = nib.as_closest_canonical(nib.load(source.mask)).get_fdata()
        np.testing.assert_array_equal(mask, expected)
        assert int(mask.sum()) == CORD_VOXELS.get(str(source.subject), int(expected.sum()))
        assert all(np.isfinite(value) for value in clean.pixel_statistics.values())


def test_a_mask_of_a_spinal_cord_goes_back_onto_the_file_it_was_drawn_on(real_data: RealData, tmp_path: Path) -> None:
    (source,) = [source for source in cords(real_data("spinal_cord")) if source.subject == "sub-9604"]
    (clean,) = clean_images([source], b"key")
    assert isinstance(clean, CleanImage)
    grid = decode_volume(source.path.read_bytes()).grid
    (tmp_path / "back.nii.gz").write_bytes(mask_on_grid(decode_volume_mask(clean.mask_data or b""), grid))
    back, drawn = nib.load(tmp_path / "back.nii.gz"), nib.load(source.mask)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(drawn.dataobj))
    np.testing.assert_allclose(back.affine, nib.load(source.path).affine, atol=1e-3)


def test_a_cord_of_another_patient_is_refused_for_this_volume(real_data: RealData) -> None:
    first, second = cords(real_data("spinal_cord"))[:2]
    wrong = ImageSource(1, first.path, "spine", "s1", None, mask=second.mask)
    (held,) = clean_images([wrong], b"key")
    assert isinstance(held, QuarantineEntry)
    assert "256 x 256 x 20 voxels of 0.58594 x 0.58594 x 2.5 mm" in held.reason


def test_every_tenth_adrenal_gland_comes_through(real_data: RealData, tmp_path: Path) -> None:
    with np.load(real_data("adrenal3d") / "adrenalmnist3d.npz") as packed:
        shapes, labels = packed["val_images"][::10], packed["val_labels"][::10, 0]
    sources = []
    for at, (shape, label) in enumerate(zip(shapes, labels, strict=True), start=1):
        path = tmp_path / f"{at}.nii.gz"
        nib.save(nib.Nifti1Image(shape, np.eye(4)), path)
        sources.append(ImageSource(at, path, "ward", f"s{at}", ("normal", "hyperplasia")[label]))
    clean = list(clean_images(sources, b"key"))
    assert len(clean) == 10
    for each, shape in zip(clean, shapes, strict=True):
        assert isinstance(each, CleanImage), each
        np.testing.assert_array_equal(decode_volume(each.data).values, shape)
    assert len({each.digest for each in clean if isinstance(each, CleanImage)}) == 10
