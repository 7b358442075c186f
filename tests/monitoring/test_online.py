import numpy as np
import pytest

from continual.domain.errors import WindowError
from monitoring.online import watch

MEAN_RUN = 60


def _run(watching, images):
    """Images until the alarm; the number of images, and False, without one."""
    evidence, _ = watching.follow(watching.start(), images)
    beyond = np.flatnonzero(evidence > watching.threshold)
    return (int(beyond[0]) + 1, True) if beyond.size else (len(evidence), False)


@pytest.mark.parametrize("images", [1, 5])
def test_runs_to_a_false_alarm_are_about_as_long_as_asked_whether_patients_have_one_image_or_many(make_window, images):
    spent = alarms = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        rows = np.repeat(generator.normal(size=(800, 4)), images, axis=0)
        rows += 0.3 * generator.normal(size=rows.shape)
        subjects = [f"s{i // images}" for i in range(len(rows))]
        known = 400 * images
        watching = watch(make_window(rows[:known], subjects=subjects[:known]), MEAN_RUN, seed)
        length, ended = _run(watching, make_window(rows[known:], subjects=subjects[known:]))
        spent, alarms = spent + length, alarms + ended
    # The mean of 40 exponential runs has a standard error of 16 %.
    assert 0.6 * MEAN_RUN <= spent / alarms <= 1.5 * MEAN_RUN


def test_darker_digits_alarm_long_before_a_false_alarm_would(make_window, digits):
    delays = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(digits))
        watching = watch(make_window(digits[order[:600]]), 150, seed)
        delays.append(_run(watching, make_window(0.8 * digits[order[600:]]))[0])
    assert np.mean(delays) <= 50


def test_a_statistic_outside_of_what_was_known_alarms_within_a_few_images(make_window):
    generator = np.random.default_rng(1)
    rows, levels = generator.normal(size=(300, 3)), generator.normal(120, 5, size=300)
    watching = watch(make_window(rows, pixels=[{"mean": float(level)} for level in levels]), 150, seed=1)
    darker = make_window(generator.normal(size=(20, 3)), pixels=[{"mean": 60.0}] * 20)
    assert _run(watching, darker)[0] <= 5


def test_images_that_come_one_by_one_add_up_to_the_same_evidence(make_window):
    rows = np.random.default_rng(2).normal(size=(220, 3))
    watching = watch(make_window(rows[:200]), MEAN_RUN, seed=1)
    whole, _ = watching.follow(watching.start(), make_window(rows[200:]))
    sums, single = watching.start(), []
    for row in rows[200:]:
        evidence, sums = watching.follow(sums, make_window(row[None, :]))
        single.extend(evidence)
    assert single == pytest.approx(whole.tolist())


def test_a_longer_run_asks_for_a_higher_threshold_and_a_seed_gives_the_same_one(make_window):
    reference = make_window(np.random.default_rng(3).normal(size=(200, 3)))
    short, again, longer = (watch(reference, run, seed=1).threshold for run in (30, 30, 300))
    assert short == again
    assert longer > short


def test_what_does_not_vary_is_not_watched_as_noise(make_window):
    reference = make_window(np.full((40, 3), 7.3), pixels=[{"mean": 5.0}] * 40)
    watching = watch(reference, MEAN_RUN, seed=1)
    evidence, _ = watching.follow(watching.start(), reference)
    assert evidence.max() <= watching.threshold


def test_images_of_another_backbone_or_without_a_statistic_are_refused(make_window):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    watching = watch(make_window(rows, pixels=[{"mean": 1.0}] * 20), MEAN_RUN, seed=1)
    with pytest.raises(WindowError, match="4 columns, the watch has 3"):
        watching.follow(watching.start(), make_window(np.ones((2, 4)), pixels=[{"mean": 1.0}] * 2))
    with pytest.raises(WindowError, match="mean is missing"):
        watching.follow(watching.start(), make_window(rows))
    with pytest.raises(WindowError, match="a watch needs 2"):
        watch(make_window(rows, subjects=["one"] * 20), MEAN_RUN, seed=1)
