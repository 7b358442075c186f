"""Statistics that move together: how often chance calls them, what the score is, and what it sees alone."""

import numpy as np
import pytest
from scipy.stats import f, norm, rankdata

from continual.domain.drift import SignalFamily
from monitoring.detectors import Effort, joint, tabular

FAMILY = SignalFamily.PIXEL_STATISTICS
EFFORT = Effort(199, 5, 0.05)


@pytest.fixture
def window(make_window):
    """Three statistics of which noise and sharpness go together; `dull` images have less sharpness for their noise."""

    def make(seed, count, *, dull=0.0, images=1, change=lambda values: values):
        random = np.random.default_rng(seed)
        values = np.repeat(random.normal(size=(count, 3)), images, axis=0) + random.normal(size=(count * images, 3)) / 9
        values[:, 2] = values[:, 1] + values[:, 2] / 5 - dull
        rows = [dict(zip(("mean", "noise", "sharpness"), row, strict=True)) for row in change(values).tolist()]
        subjects = [f"{seed}-{place // images:04d}" for place in range(len(rows))]
        return make_window(np.zeros((len(rows), 1)), pixels=rows, subjects=subjects)

    return make


def finding(reference, current, effort=EFFORT):
    (found,) = joint.measure(reference, current, FAMILY, effort)
    return found


@pytest.mark.parametrize("images", [1, 6])
def test_chance_calls_as_often_as_the_level_says(window, images):
    # 300 pairs at .05: 15 calls; fewer than 4 or more than 29 have a probability below .001 each.
    pairs = [(window(2 * seed, 60, images=images), window(2 * seed + 1, 30, images=images)) for seed in range(300)]
    assert 4 <= sum(finding(*pair).p_value <= 0.05 for pair in pairs) <= 29


def test_a_change_too_small_for_any_one_statistic_is_seen_in_how_they_go_together(window):
    pairs = [(window(1000 + seed, 200), window(2000 + seed, 50, dull=0.25)) for seed in range(40)]
    assert sum(finding(*pair).p_value <= 0.002 for pair in pairs) >= 38
    columns = [tabular.measure(*pair, FAMILY, EFFORT) for pair in pairs]
    assert sum(min(one.p_value for one in found) <= 0.002 for found in columns) <= 4


def test_the_p_value_is_near_that_of_hotellings_t_squared_on_normal_scores(window):
    for seed in range(8):
        reference, current = window(seed, 80), window(100 + seed, 40, dull=0.06)
        rows = np.array([list(row.values()) for row in (*reference.pixel_statistics, *current.pixel_statistics)])
        scores = norm.ppf((rankdata(rows, axis=0) - 0.5) / len(rows))
        known, new = scores[:80], scores[80:]
        apart = known.mean(axis=0) - new.mean(axis=0)
        within = (79 * np.cov(known.T) + 39 * np.cov(new.T)) / 118
        t_squared = 80 * 40 / 120 * apart @ np.linalg.solve(within, apart)
        expected = f.sf(t_squared * 116 / (118 * 3), 3, 116)
        assert finding(reference, current, Effort(9_999, 5)).p_value == pytest.approx(expected, abs=0.02)


def test_units_and_repeated_statistics_change_nothing(window):
    def other(values):
        return np.column_stack([np.exp(values[:, 0]), 7 - 3 * values[:, 1], values[:, 2] ** 3])

    plain = finding(window(1, 90), window(2, 40, dull=0.1))
    bent = finding(window(1, 90, change=other), window(2, 40, dull=0.1, change=other))
    assert (bent.score, bent.p_value) == (pytest.approx(plain.score), plain.p_value)


def test_grey_images_whose_channels_say_the_same_are_compared_by_one_of_them(make_window):
    def grey(seed, count, channels):
        values = np.random.default_rng(seed).normal(size=(count, 2))
        rows = [{f"mean {place}": row[0] for place in range(channels)} | {"noise": row[1]} for row in values]
        return make_window(np.zeros((count, 1)), pixels=rows)

    one, three = (finding(grey(1, 60, channels), grey(2, 30, channels)) for channels in (1, 3))
    assert (three.score, three.p_value) == (pytest.approx(one.score), one.p_value)


def test_the_smallest_alarming_score_is_near_what_permutations_say(window):
    found = finding(window(1, 200), window(2, 80, dull=0.1), Effort(9_999, 5))
    assert 0.01 < found.p_value < 1
    assert found.smallest_alarming(found.p_value) == pytest.approx(found.score, rel=0.03)


def test_permutations_are_many_only_where_the_first_ones_are_rarely_as_far_apart(window):
    quiet, loud = finding(window(1, 100), window(2, 40)), finding(window(1, 100), window(2, 40, dull=2))
    assert (quiet.detail["permutations"], loud.detail["permutations"]) == (199, 799)
    assert (quiet.p_value > 0.02, loud.p_value) == (True, 1 / 800)


def test_the_level_is_within_reach_beside_as_many_statistics_as_there_are(make_window):
    values = np.random.default_rng(3).normal(size=(140, 60))
    values[100:] += 2
    known, new = (
        make_window(np.zeros((len(part), 1)), pixels=[dict(zip(map(str, range(60)), row, strict=True)) for row in part])
        for part in (values[:100], values[100:])
    )
    assert finding(known, new).p_value <= EFFORT.level / 62


def test_what_was_not_recorded_counts_as_usual_and_one_number_alone_is_no_table(make_window):
    gaps = [{"mean": float(n), "noise": float(n * 7 % 30)} | ({"sharpness": n / 3} if n % 3 else {}) for n in range(30)]
    window = make_window(np.zeros((30, 1)), pixels=gaps)
    assert finding(window, window).score == pytest.approx(0.0, abs=1e-9)
    alone = make_window(np.zeros((30, 1)), pixels=[{"mean": float(n)} for n in range(30)])
    assert joint.measure(alone, alone, FAMILY, EFFORT) == ()


def test_one_subject_calls_no_more_often_than_one_in_all(window):
    # However strange, one of 61 subjects has p = 1/61 at the least, but for the draw of permutations.
    strange = window(2, 1, change=lambda values: values + [[9, -9, 9]])
    assert finding(window(1, 60), strange).p_value > 0.005
