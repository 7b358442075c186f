"""Subjects that are far out: how often chance calls them, how few suffice, and what is left out."""

import numpy as np
import pytest

from continual.domain.drift import SignalFamily
from monitoring.detectors import Effort, outlying, tabular

FAMILY = SignalFamily.PIXEL_STATISTICS
EFFORT = Effort(199, 5)


@pytest.fixture
def window(make_window):
    """Pixel statistics of normal grey levels; the first `odd` subjects lie six standard deviations off in one."""

    def make(seed, count, *, odd=0, images=1):
        values = np.random.default_rng(seed).normal(size=(count * images, 3))
        values[: odd * images, 0] += 6
        rows = [{"mean": 100 + row[0], "noise": row[1], "sharpness": row[2]} for row in values]
        subjects = [f"{seed}-{place // images:04d}" for place in range(len(rows))]
        return make_window(np.zeros((len(rows), 1)), pixels=rows, subjects=subjects)

    return make


def finding(reference, current):
    (found,) = outlying.measure(reference, current, FAMILY, EFFORT)
    return found


@pytest.mark.parametrize("images", [1, 6])
def test_chance_calls_no_more_often_than_the_level_says(window, images):
    # 400 pairs at .05: Bonferroni leaves about .02, 8 calls; more than 20 have a probability below .001 even then, and
    # none at all would mean a test that cannot call.
    pairs = [(window(2 * seed, 60, images=images), window(2 * seed + 1, 30)) for seed in range(400)]
    assert 1 <= sum(finding(*pair).p_value <= 0.05 for pair in pairs) <= 20


def test_five_strange_subjects_of_fifty_are_seen_where_a_distribution_test_sees_nothing(window):
    pairs = [(window(1000 + seed, 600), window(2000 + seed, 50, odd=5)) for seed in range(40)]
    # .002 is what a level of .05 leaves beside another family and a dozen columns.
    assert sum(finding(*pair).p_value <= 0.002 for pair in pairs) >= 30
    columns = [tabular.measure(*pair, FAMILY, EFFORT) for pair in pairs]
    assert sum(min(one.p_value for one in found) <= 0.002 for found in columns) <= 4


def test_the_finding_says_how_many_of_the_farthest_are_current(window):
    found = finding(window(1, 200), window(2, 50, odd=8))
    assert (found.detail["farthest"], found.detail["of_them_current"]) == (8, 8)


def test_a_reference_with_strange_subjects_is_no_drift_of_the_current_window(window):
    assert finding(window(1, 200, odd=20), window(2, 50)).p_value > 0.5


def test_the_smallest_alarming_score_is_where_the_p_value_reaches_the_level(window):
    found = finding(window(1, 200), window(2, 50, odd=3))
    assert found.smallest_alarming(found.p_value) == pytest.approx(found.score)


def test_what_was_not_recorded_counts_as_usual_and_what_does_not_vary_gives_no_finding(make_window):
    some = [{"mean": float(value)} if value % 3 else {} for value in range(30)]
    gaps = make_window(np.zeros((30, 1)), pixels=some)
    assert finding(gaps, gaps).p_value == 1
    flat = make_window(np.zeros((30, 1)), pixels=[{"mean": 1.0}] * 30)
    assert outlying.measure(flat, flat, FAMILY, EFFORT) == ()


def test_a_column_of_few_numbers_that_some_subjects_lack_is_left_out(make_window):
    random = np.random.default_rng(5)
    rows = [{"mean": float(random.normal())} | ({"frames": float(n % 4)} if n % 3 else {}) for n in range(30)]
    both, alone = (
        make_window(np.zeros((30, 1)), pixels=pixels) for pixels in (rows, [{"mean": row["mean"]} for row in rows])
    )
    new = make_window(np.zeros((15, 1)), pixels=[{"mean": row["mean"] + 4, "frames": 2.0} for row in rows[:15]])
    assert finding(both, new).p_value == finding(alone, new).p_value < 0.01
