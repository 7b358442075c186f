"""The quality gate and the pixel statistics, on pictures whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from continual.domain.errors import QualityError
from continual.imaging import check_quality, pixel_statistics


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, dtype=np.uint8)[..., np.newaxis], 3, axis=2)


def texture(height: int = 32, width: int = 32) -> np.ndarray:
    return rgb(np.random.default_rng(0).integers(40, 200, size=(height, width)))


@pytest.mark.parametrize("shape", [(16, 16), (16, 8192), (300, 20)])
def test_pictures_of_legal_size_pass(shape: tuple[int, int]) -> None:
    check_quality(texture(*shape))


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (texture(15, 32), "each side needs 16"),
        (texture(32, 15), "each side needs 16"),
        (texture(16, 8193), "each side may have 8192"),
        (rgb(np.full((32, 32), 90)), "is blank"),
        (rgb(np.where(np.arange(1024).reshape(32, 32) < 10, 91, 90)), "is blank"),
        (rgb(np.where(np.arange(1024).reshape(32, 32) % 2, 255, 0)), "100.0% of the pixels"),
        (rgb(np.where(np.arange(1024).reshape(32, 32) < 10, 120, 255)), "pure black or white"),
        (texture()[..., 0], "not 8-bit RGB"),
        (texture().astype(np.float32), "not 8-bit RGB"),
    ],
)
def test_what_must_not_be_learnt_from_is_held_with_value_and_limit(pixels: np.ndarray, told: str) -> None:
    with pytest.raises(QualityError) as caught:
        check_quality(pixels)
    assert told in str(caught.value)


def test_the_saturation_limit_is_98_percent() -> None:
    grey = np.full(1000, 255)
    grey[:20] = 100
    check_quality(rgb(grey.reshape(20, 50)))
    grey[19] = 255
    with pytest.raises(QualityError, match=r"98\.1%"):
        check_quality(rgb(grey.reshape(20, 50)))


def test_statistics_of_a_half_black_half_white_picture_are_the_known_ones() -> None:
    measured = pixel_statistics(rgb(np.repeat([[0] * 10 + [255] * 10], 20, axis=0)))
    assert measured["mean"] == measured["std"] == 127.5
    assert (measured["p01"], measured["p99"], measured["contrast"], measured["entropy"]) == (0, 255, 1, 1)
    assert (measured["saturated_low_share"], measured["saturated_high_share"]) == (0.5, 0.5)
    # The Laplacian is +255 and -255 on the two columns at the edge of 18, and 0 elsewhere.
    assert measured["sharpness"] == pytest.approx(2 * 255**2 / 18)
    # Every row is the same, so the mixed second difference is 0: an edge is no noise.
    assert measured["noise"] == 0


def test_percentiles_agree_with_numpy() -> None:
    pixels = texture(50, 60)
    measured = pixel_statistics(pixels)
    for name, q in (("p01", 1), ("p50", 50), ("p99", 99)):
        assert measured[name] == np.percentile(pixels[..., 0], q, method="inverted_cdf")


def test_channel_means_tell_the_colours_apart() -> None:
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 2] = 200, 50
    measured = pixel_statistics(pixels)
    assert (measured["mean_red"], measured["mean_green"], measured["mean_blue"]) == (200, 0, 50)
    assert measured["mean"] == round(0.299 * 200 + 0.114 * 50)


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_the_noise_estimate_finds_the_noise_that_was_added(sigma: float) -> None:
    # 128 x 128 pixels: the estimate's standard error is below 2 %; 8 % leaves room for rounding to grey levels.
    slope = np.add.outer(np.linspace(60, 120, 128), np.linspace(0, 60, 128))
    noisy = slope + np.random.default_rng(1).normal(0, sigma, size=slope.shape)
    assert pixel_statistics(rgb(np.rint(noisy)))["noise"] == pytest.approx(sigma, rel=0.08)


def test_blur_lowers_sharpness() -> None:
    sharp = texture(64, 64)
    blurred = np.rint((sharp.astype(float) + np.roll(sharp, 1, 0) + np.roll(sharp, 1, 1)) / 3).astype(np.uint8)
    assert pixel_statistics(blurred)["sharpness"] < 0.5 * pixel_statistics(sharp)["sharpness"]


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_statistics_are_finite_and_within_their_stated_ranges(pixels: np.ndarray) -> None:
    measured = pixel_statistics(pixels)
    assert all(type(value) is float and math.isfinite(value) for value in measured.values())
    assert all(value >= 0 for value in measured.values())
    assert all(measured[name] <= 1 for name in ("contrast", "saturated_low_share", "saturated_high_share"))
    assert measured["entropy"] <= 8
    assert measured["p01"] <= measured["p50"] <= measured["p99"] <= 255
