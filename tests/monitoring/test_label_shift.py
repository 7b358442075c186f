"""A changed case mix is told from changed images: digits as patients, their classes as diagnoses."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, PerformanceEvidence, Verdict
from continual.domain.errors import WindowError
from monitoring import UNLABELLED, Intake, look
from monitoring.label_shift import estimate_mix, match_reference

CLEAN = Intake(offered=100, quarantined=0)
CLASSES = tuple(f"digit {number}" for number in range(4))


@pytest.fixture(scope="module")
def patients():
    """Images of four classes, their labels, and a champion that was trained on others of them."""
    images, labels = load_digits(n_class=4, return_X_y=True)
    images = images / 16.0
    model = LogisticRegression(max_iter=500).fit(images[:200], labels[:200])
    return images[200:], labels[200:], model


@pytest.fixture
def draw(patients, make_window):
    """A window of images with a case mix, each changed by `alter`; the champion's outputs with it."""
    images, labels, model = patients

    def make(generator, count, mix, alter=lambda rows: rows, *, labelled=True):
        wanted = generator.choice(4, size=count, p=mix)
        rows = np.array([generator.choice(np.flatnonzero(labels == klass)) for klass in wanted])
        changed = alter(images[rows])
        window = make_window(changed, outputs=model.predict_proba(changed))
        return replace(window, labels=labels[rows] if labelled else None, classes=CLASSES)

    return make


EVEN, SKEWED = (0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.1, 0.1)


def verdicts(draw, mix, alter=lambda rows: rows, draws=12):
    found = []
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        known, new = draw(generator, 300, EVEN), draw(generator, 100, mix, alter, labelled=False)
        found.append(look([known], new, ChangePlan(permutations=199, seed=seed), CLEAN))
    return found


def test_a_changed_case_mix_is_called_prevalence_shift_and_the_class_is_named(draw):
    reports = verdicts(draw, SKEWED)
    called = [report for report in reports if report.verdict is Verdict.PREVALENCE_SHIFT]
    # The test against the matched reference alarms by chance, or for what the estimate leaves over, now and then.
    assert len(called) >= 10
    assert all(report.action is Action.RECALIBRATE for report in called)
    assert "digit 0 from" in called[0].reason
    assert called[0].case_mix.current[0] == pytest.approx(0.7, abs=0.12)
    assert sum(called[0].case_mix.current) == pytest.approx(1.0)


def test_darker_images_of_the_old_mix_are_never_explained_by_a_mix(draw):
    reports = verdicts(draw, EVEN, lambda rows: 0.75 * rows)
    assert all(report.verdict is Verdict.COVARIATE_SHIFT for report in reports)
    assert not any(report.case_mix.explains for report in reports)


def test_darker_images_of_another_mix_are_not_explained_by_it(draw):
    assert all(r.verdict is Verdict.COVARIATE_SHIFT for r in verdicts(draw, SKEWED, lambda rows: 0.7 * rows, draws=6))


def test_a_mix_explains_nothing_where_measured_performance_fell(draw):
    generator = np.random.default_rng(0)
    known, new = draw(generator, 300, EVEN), draw(generator, 100, SKEWED)
    verdict = {}
    for fell in (0.0, 0.2):
        performance = PerformanceEvidence("balanced_accuracy", 0.9, 0.9 - fell, 100)
        verdict[fell] = look([known], new, ChangePlan(permutations=199, seed=0), CLEAN, performance).verdict
    assert verdict == {0.0: Verdict.PREVALENCE_SHIFT, 0.2: Verdict.COVARIATE_SHIFT}


def test_the_estimated_mix_comes_near_the_true_one(draw):
    apart = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        known, new = draw(generator, 300, EVEN), draw(generator, 200, SKEWED, labelled=False)
        apart.append(np.abs(estimate_mix(known.outputs, known.labels, new.outputs) - SKEWED).max())
    assert np.mean(apart) < 0.05


def test_the_matched_reference_has_the_mix_and_both_draws_have_one_size(draw):
    generator = np.random.default_rng(0)
    found = match_reference(draw(generator, 300, EVEN), draw(generator, 200, SKEWED), seed=1)
    shares = np.bincount(found.matched.labels, minlength=4) / len(found.matched.labels)
    assert shares == pytest.approx(found.mix, abs=0.02)
    assert len(found.matched.subjects) == len(found.unmatched.subjects) >= 80


def test_without_labels_or_with_one_class_there_is_no_estimate(draw):
    generator = np.random.default_rng(0)
    known, new = draw(generator, 60, EVEN), draw(generator, 60, SKEWED)
    assert match_reference(replace(known, labels=None), new, 1) is None
    assert match_reference(replace(known, labels=np.full(60, UNLABELLED)), new, 1) is None
    assert match_reference(replace(known, labels=np.zeros(60, dtype=int)), new, 1) is None
    assert match_reference(known, replace(new, labels=None, outputs=None), 1) is None


def test_a_mix_that_the_reference_can_hardly_show_explains_nothing(draw):
    # Two samples of the class that is all there is now: no reference of that mix is large enough to test against.
    generator = np.random.default_rng(0)
    known, new = draw(generator, 200, (0.03, 0.37, 0.3, 0.3)), draw(generator, 60, (1.0, 0.0, 0.0, 0.0))
    report = look([known], new, ChangePlan(permutations=199), CLEAN)
    assert report.verdict is Verdict.COVARIATE_SHIFT


def test_labels_are_checked_at_the_door(make_window):
    rows = np.ones((3, 2))
    with pytest.raises(WindowError, match="class 2 of 2 classes; use -1 where none is known"):
        replace(make_window(rows, outputs=rows), labels=np.array([0, 2, 1]))
    with pytest.raises(WindowError, match=r"shape \(2,\) for 3 samples"):
        replace(make_window(rows, outputs=rows), labels=np.array([0, 1]))
