"""What is said of performance without labels: near the truth where only images' frequencies or light change."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, PerformanceEvidence, Verdict
from monitoring import UNLABELLED, Intake, look
from monitoring.performance_estimate import estimate_performance, outside_share

CLEAN = Intake(offered=100, quarantined=0)


@pytest.fixture(scope="module")
def clinic():
    """Noisy digits that a modest champion gets wrong now and then: images, labels, champion."""
    images, labels = load_digits(n_class=5, return_X_y=True)
    images = images / 16.0 + np.random.default_rng(0).normal(scale=0.5, size=images.shape)
    return images[200:], labels[200:], LogisticRegression(C=0.05, max_iter=500).fit(images[:200], labels[:200])


@pytest.fixture
def draw(clinic, make_window):
    def make(rows, alter=lambda images: images):
        images, labels, model = clinic
        changed = alter(images[rows])
        return replace(make_window(changed, outputs=model.predict_proba(changed)), labels=labels[rows])

    return make


def halves(seed, clinic):
    return np.split(np.random.default_rng(seed).permutation(len(clinic[0]))[:700], [400])


COVARIATES = {
    "none": lambda images, _labels: np.zeros(len(images)),
    "ink": lambda images, _labels: 6 * images.mean(axis=1),
    "left against right": lambda images, _labels: 3 * (images[:, 0::2].mean(axis=1) - images[:, 1::2].mean(axis=1)),
    "case mix": lambda _images, labels: 0.5 * labels,
}
"""What makes an image more frequent in the current window than in the reference: logarithms of its frequency."""


@pytest.mark.parametrize("covariate", COVARIATES)
def test_where_only_frequencies_change_the_estimate_lies_within_five_points_of_the_truth_on_average(
    draw, clinic, covariate
):
    errors, inside = [], 0
    for seed in range(15):
        known, rest = halves(seed, clinic)
        weight = COVARIATES[covariate](clinic[0][rest], clinic[1][rest])
        chance = np.exp((weight - weight.mean()) / max(weight.std(), 1e-9))
        new = np.random.default_rng(seed).choice(rest, size=200, replace=False, p=chance / chance.sum())
        current = draw(new)
        found = estimate_performance(draw(known), replace(current, labels=None), seed)
        truth = balanced_accuracy_score(current.labels, current.outputs.argmax(axis=1))
        errors.append(abs(found.value - truth))
        inside += found.low <= truth <= found.high
    assert np.mean(errors) <= 0.05
    # 95 % intervals of an estimate that is nearly, not quite, without bias.
    assert inside >= 11


def test_images_outside_the_reference_are_not_estimated(draw, clinic):
    known, new = halves(0, clinic)
    assert outside_share(draw(known), draw(new), 0) < 0.06
    broken = draw(new, lambda images: 1.5 - images)
    assert outside_share(draw(known), broken, 0) > 0.9
    assert estimate_performance(draw(known), broken, 0) is None


def test_without_labels_or_outputs_on_the_reference_nothing_is_estimated(draw, clinic):
    known, new = (draw(rows) for rows in halves(0, clinic))
    assert estimate_performance(replace(known, labels=None), new, 0) is None
    assert estimate_performance(known, replace(new, labels=None, outputs=None), 0) is None
    few = np.where(np.arange(400) < 19, known.labels, UNLABELLED)
    assert estimate_performance(replace(known, labels=few), new, 0) is None


def test_one_subject_gives_an_interval_of_the_reference_alone(draw, clinic):
    known, new = (draw(rows) for rows in halves(0, clinic))
    found = estimate_performance(known, replace(new, subjects=("only",) * 300), 0)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_shift_without_labels_is_logged_where_the_estimate_holds_and_asks_for_labels_where_it_does_not(draw, clinic):
    rows, others = halves(1, clinic)
    known, new = draw(rows), draw(others, lambda images: 0.8 * images)
    blind = replace(new, labels=None)
    for reference, action in ((0.5, Action.LOG), (0.99, Action.REQUEST_LABELS)):
        evidence = PerformanceEvidence("balanced_accuracy", reference, None, 0)
        report = look([known], blind, ChangePlan(permutations=199), CLEAN, evidence)
        assert (report.verdict, report.action) == (Verdict.COVARIATE_SHIFT, action)
        assert "is estimated without labels at" in report.reason
        assert report.performance.estimated_low < report.performance.estimated < report.performance.estimated_high


def test_a_class_that_became_frequent_does_not_drown_the_recall_of_the_rare_ones(draw, clinic):
    wrong = []
    for seed in range(15):
        known, rest = halves(seed, clinic)
        labels, generator = clinic[1][rest], np.random.default_rng(seed)
        frequent = generator.permutation(rest[labels == 1])[:45]
        rare = [generator.permutation(rest[labels == klass])[:5] for klass in (0, 2, 3, 4)]
        current = draw(np.concatenate([frequent, *rare]))
        found = estimate_performance(draw(known), replace(current, labels=None), seed)
        wrong.append(found.value - balanced_accuracy_score(current.labels, current.outputs.argmax(axis=1)))
    # Five images of a class show its recall to within .15 or so: the mean over draws is what a bias would move.
    assert abs(np.mean(wrong)) <= 0.03


def test_a_class_too_rare_on_the_reference_for_a_share_of_its_own_stays_possible(draw, clinic):
    known, new = halves(2, clinic)
    labels = clinic[1][known]
    kept = np.concatenate([known[labels != 4], known[labels == 4][:3]])
    found = estimate_performance(draw(kept), replace(draw(new), labels=None), 2)
    assert found.value == pytest.approx(balanced_accuracy_score(draw(new).labels, draw(new).outputs.argmax(1)), abs=0.1)
