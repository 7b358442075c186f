"""What holds a volume back, and the numbers in which a broken scanner shows on one."""

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from continual.domain.samples import CleanImage, QuarantineEntry
from continual.imaging import ImageSource, clean_images

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def scan(gain: float = 1, noise: float = 4) -> np.ndarray:
    """A bright ball on a dark ground, grey levels 0 to about 800 times the gain, 32 x 32 x 12."""
    x, y, z = np.ogrid[-1:1:32j, -1:1:32j, -1:1:12j]
    ball = 600.0 * (x**2 + y**2 + z**2 < 0.6) * (1.2 + 0.2 * np.sin(9 * x))
    return (gain * (50 + ball + np.random.default_rng(1).normal(scale=noise, size=ball.shape))).astype(np.float32)


@pytest.fixture
def cleaned(source_of: Callable[..., ImageSource]) -> Callable[..., CleanImage | QuarantineEntry]:
    def make(voxels: np.ndarray, affine: np.ndarray = AFFINE, **fields: object) -> CleanImage | QuarantineEntry:
        data = nib.Nifti1Image(voxels, affine).to_bytes()
        return next(iter(clean_images([source_of(data, **fields)], b"key")))

    return make


def test_a_clean_volume_says_what_it_is_and_names_nobody(cleaned: Callable[..., CleanImage]) -> None:
    clean = cleaned(scan(), subject="Doe", label="normal")
    assert (clean.width, clean.height, clean.depth, clean.spacing_mm) == (32, 32, 12, (1, 1, 3))
    assert clean.subject != "Doe"
    assert clean.tags == {
        "format": "NIFTI", "width": 32, "height": 32, "depth": 12, "spacing_x_mm": 1, "spacing_y_mm": 1,
        "spacing_z_mm": 3, "stored_axes": "RAS", "oblique_degrees": 0, "voxel_type": "float32",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("voxels", "reason"),
    [
        (np.full((20, 20, 20), 7, dtype=np.int16), "is blank: 0.000% of its 20 x 20 x 20"),
        (np.eye(200, dtype=np.int16)[:, :, None].repeat(12, axis=2) * (np.arange(12) == 3), "is blank: 0.042%"),
        (scan()[:15, :15], "15 x 15 x 12 voxels, two sides need 16"),
    ],
)
def test_a_blank_or_tiny_volume_is_held_back(
    voxels: np.ndarray, reason: str, cleaned: Callable[..., QuarantineEntry]
) -> None:
    assert reason in cleaned(voxels).reason


def test_a_small_cut_out_shape_is_no_blank_volume(cleaned: Callable[..., CleanImage]) -> None:
    shape = np.zeros((28, 28, 28), dtype=np.uint8)
    shape[12:15, 12:15, 12:16] = 255  # 36 of 21,952 voxels, as the smallest of a real collection
    clean = cleaned(shape)
    assert isinstance(clean, CleanImage)
    assert clean.pixel_statistics["saturated_high_share"] == pytest.approx(36 / 28**3)
    assert clean.pixel_statistics["mean"] == pytest.approx(255 * 36 / 28**3)


def test_a_volume_without_a_subject_is_held_back(cleaned: Callable[..., QuarantineEntry]) -> None:
    assert "fill in the subject" in cleaned(scan(), subject=None).reason


def test_gain_shows_in_values_and_not_in_grey_levels(cleaned: Callable[..., CleanImage]) -> None:
    plain, loud = (cleaned(scan(gain)).pixel_statistics for gain in (1, 3))
    assert loud["value_p99"] == pytest.approx(3 * plain["value_p99"], rel=1e-5)
    assert loud["mean"] == pytest.approx(plain["mean"], abs=0.5)


def test_noise_shows_and_slices_are_looked_at_across_the_widest_spacing(cleaned: Callable[..., CleanImage]) -> None:
    quiet, noisy = (cleaned(scan(noise=level)).pixel_statistics["noise"] for level in (4, 40))
    assert noisy > quiet + 5
    striped = scan() + 200 * (np.arange(12) % 2)  # slices that differ in brightness, each of them smooth
    thick, thin = (cleaned(striped, np.diag([1.0, 1.0, z, 1.0])).pixel_statistics for z in (3.0, 0.5))
    assert thin["sharpness"] > 3 * thick["sharpness"]


def test_an_inverted_volume_has_mirrored_grey_levels(cleaned: Callable[..., CleanImage]) -> None:
    plain, inverted = (cleaned(voxels).pixel_statistics for voxels in (scan(), 900 - scan()))
    for name, mirrored in (("mean", "mean"), ("p01", "p99"), ("p50", "p50")):
        assert inverted[name] == pytest.approx(255 - plain[mirrored], abs=1.5)
