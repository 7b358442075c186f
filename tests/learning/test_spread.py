"""What is looked at in place of all pixels, tiles or boxes lies everywhere, whatever the sizes are."""

import numpy as np
import pytest

from continual.domain.samples import IGNORED, Sample, Split
from continual.learning.segmentation import draws, judging


@pytest.mark.parametrize("shape", [(512, 512), (2048, 2048), (256, 256, 20), (384, 384, 17), (64, 64, 16)])
def test_pixels_that_are_judged_lie_in_all_lines_and_slices(shape):
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = IGNORED
    chosen = judging._spread(mask)
    assert len(set(chosen.tolist())) == len(chosen) == judging.PIXELS_PER_IMAGE
    rows, *others = np.unravel_index(chosen, shape)
    assert rows.min() >= shape[0] // 2
    for places, size in zip(others, shape[1:], strict=True):
        assert len(np.unique(places)) > 0.8 * min(size, judging.PIXELS_PER_IMAGE / 4)
    assert np.array_equal(chosen, judging._spread(mask))


def masked(count):
    return [Sample(f"{n:064x}", "north", f"s{n}", None, Split.TRAIN, "a", batch=1, mask=f"m{n}") for n in range(count)]


class Contents:
    """A cache whose every image holds every class in every tile."""

    def __init__(self, tiles, classes):
        self._tiles, self._classes = tiles, classes

    def contents(self, _sample):
        held = np.zeros((self._tiles, 256), int)
        held[:, : self._classes + 1] = 50
        return held

    def view(self, _digest, tile, _variant):
        return tile

    def inputs(self, _digest, view):
        return (view,)


@pytest.mark.parametrize("images", [20, 40, 60, 100, 200])
@pytest.mark.parametrize("tiles", [4, 9])
def test_importance_is_measured_on_all_parts_of_an_image(monkeypatch, images, tiles):
    monkeypatch.setattr(draws, "_target", lambda _cache, draw: draw.view)
    seen = [inputs[0] for inputs, _ in draws.tile_examples(Contents(tiles, 1), masked(images))]
    assert set(seen) == set(range(tiles))
    assert len(seen) == min(draws.MOST_EXAMPLES, images * tiles)


@pytest.mark.parametrize("images", [33, 50, 100, 200])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_importance_is_measured_on_all_classes_under_boxes(monkeypatch, images, classes):
    monkeypatch.setattr(draws, "box_inputs", lambda _cache, _sample, _view, number, **_tight: (number,))
    monkeypatch.setattr(draws, "_target", lambda _cache, draw: draw.number)
    seen = [inputs[0] for inputs, _ in draws.box_examples(Contents(1, classes), masked(images))]
    assert set(seen) == set(range(1, classes + 1))
