"""Images that lost part of their field are told from darker ones, from another device's, and from clean ones."""

from dataclasses import replace

import numpy as np
import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, PerformanceEvidence, Verdict
from continual.imaging import pixel_statistics
from monitoring import Intake, look
from monitoring.framing import cropped_share

SIDE_PX = 64
TAGS = {"format": "PNG", "manufacturer": "Aurora Imaging", "pixel_spacing_mm": 0.4}


def slide(generator):
    """A bright field with a dark round object, as on a stained slide."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    centre, radius = generator.uniform(24, 40, size=2), generator.uniform(14, 20)
    inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
    grey = np.where(inside, generator.normal(90, 6), generator.normal(215, 5)) + generator.normal(
        0, 5, (SIDE_PX, SIDE_PX)
    )
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def truncated(picture):
    return np.where(np.arange(SIDE_PX)[:, None, None] >= 42, 0, picture).astype(np.uint8)


def framed_white(picture):
    framed = np.full_like(picture, 255)
    framed[8:-8, 8:-8] = picture[8:-8, 8:-8]
    return framed


def cut(picture):
    return picture[:, 10:-6]


def enlarged(picture):
    return np.pad(picture, ((0, 16), (0, 16), (0, 0)), mode="wrap")


@pytest.fixture
def slides(make_window):
    """A window of slides, the last `broken` of them altered."""

    def make(seed, count=60, broken=0, alter=truncated, site="north", **tags):
        generator = np.random.default_rng(seed)
        pictures = [slide(generator) for _ in range(count)]
        pictures = [alter(picture) if at >= count - broken else picture for at, picture in enumerate(pictures)]
        return make_window(
            np.random.default_rng(seed).normal(size=(count, 3)),
            site,
            subjects=[f"{seed}-{at}" for at in range(count)],
            pixels=[pixel_statistics(picture) for picture in pictures],
            tags=[{**TAGS, "width": p.shape[1], "height": p.shape[0], **tags} for p in pictures],
        )

    return make


@pytest.mark.parametrize("alter", [truncated, framed_white, cut])
def test_share_of_images_that_lost_part_of_their_field_is_found(slides, alter):
    assert cropped_share(slides(1, 200), slides(2, 60, 18, alter)) == pytest.approx(0.30, abs=0.04)


def test_clean_windows_are_not_called_cropped_in_100_draws(slides):
    reference = slides(1, 200)
    # 1 in 100 images is unusual by definition; 3 of 20 would be far from the plan's limit of a fifth.
    assert max(cropped_share(reference, slides(seed, 20)) for seed in range(2, 102)) <= 0.10


@pytest.mark.parametrize(
    "alter",
    [
        lambda picture: (0.8 * picture).astype(np.uint8),
        lambda picture: np.clip(1.3 * picture.astype(float) - 115, 0, 255).astype(np.uint8),
        enlarged,
    ],
    ids=["darker", "clipped to black by contrast", "larger"],
)
def test_images_that_only_look_otherwise_are_not_called_cropped(slides, alter):
    assert cropped_share(slides(1, 200), slides(2, 60, 60, alter)) <= 0.05


@pytest.mark.parametrize("tags", [{"manufacturer": "Meridian"}, {"pixel_spacing_mm": 0.55}, {"kvp_kv": 80}])
def test_a_smaller_field_of_another_device_is_no_cut(slides, tags):
    assert cropped_share(slides(1, 200), slides(2, 60, 60, cut)) > 0.8
    assert cropped_share(slides(1, 200), slides(2, 60, 60, cut, **tags)) == 0.0


def test_a_tag_that_is_not_recorded_names_no_other_device(slides):
    assert cropped_share(slides(1, 200), slides(2, 60, 60, cut, pixel_spacing_mm=float("nan"))) > 0.8


def test_black_that_the_reference_has_too_is_no_loss(slides):
    assert cropped_share(slides(1, 200, 200), slides(2, 60, 60)) <= 0.05


def test_another_site_is_no_measure_of_the_field(slides):
    assert cropped_share(slides(1, 200, site="south"), slides(2, 60, 60)) == 0.0


def test_windows_without_statistics_or_sides_give_no_cropped_images(make_window, slides):
    bare = make_window(np.ones((5, 3)))
    assert cropped_share(slides(1, 60), bare) == 0.0
    assert cropped_share(bare, slides(1, 60, 60)) == 0.0
    assert cropped_share(slides(1, 60), replace(slides(2, 60, 60, cut), tags=({},) * 60)) == 0.0


def test_cropped_images_are_a_data_fault_and_never_an_update_however_much_the_champion_falls(slides):
    fell = PerformanceEvidence("balanced_accuracy", 0.9, 0.4, 60, for_training=60)
    report = look([slides(1, 200)], slides(2, 60, 20), ChangePlan(), Intake(60, 0), fell)
    assert (report.verdict, report.action) == (Verdict.DATA_FAULT, Action.QUARANTINE)
    assert "33% of 60 images (limit 20%)" in report.reason
    assert "check what the export crops" in report.reason
