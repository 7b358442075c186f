import numpy as np
import pytest

from monitoring.polarity import inverted_share


def _pixels(generator, count, *, inverted=False):
    """Statistics of bright images with dark objects, as on a stained slide."""
    rows = []
    for mean, low, high in generator.normal([190, 50, 235], [12, 10, 6], size=(count, 3)):
        middle = mean + 12
        levels = {"mean": mean, "p01": low, "p50": middle, "p99": high}
        if inverted:
            levels = {"mean": 255 - mean, "p01": 255 - high, "p50": 255 - middle, "p99": 255 - low}
        rows.append(levels)
    return rows


@pytest.fixture
def slides(make_window):
    def make(seed, upright, inverted=0, site="north"):
        generator = np.random.default_rng(seed)
        rows = _pixels(generator, upright) + _pixels(generator, inverted, inverted=True)
        return make_window(np.ones((len(rows), 1)), site, pixels=rows)

    return make


def test_share_of_inverted_images_is_found_exactly(slides):
    assert inverted_share(slides(1, 200), slides(2, 70, 30)) == pytest.approx(0.30)


def test_upright_images_are_never_called_inverted(slides):
    assert max(inverted_share(slides(seed, 200), slides(seed + 50, 100)) for seed in range(20)) == 0.0


def test_another_site_is_no_measure_of_polarity(slides):
    assert inverted_share(slides(1, 200, site="south"), slides(2, 0, 100)) == 0.0


def test_windows_without_grey_levels_give_no_inverted_images(make_window, slides):
    assert inverted_share(slides(1, 50), make_window(np.ones((5, 1)), pixels=[{"noise": 1.0}] * 5)) == 0.0
