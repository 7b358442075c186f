"""The gate: its two error rates over many seeds, its rules one by one, its speed."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.adapters import SiteOutcomes
from continual.domain.change_plan import ChangePlan
from continual.domain.errors import ConflictError, SettingsError
from continual.domain.metrics import balanced_accuracy
from registry import run_gate

PLAN = ChangePlan(bootstrap_draws=500)
CLASSES = np.array(["benign", "malignant"])


def outcomes(site, hit_rate, subjects, seed, images=1):
    """A model that is right with the given probability; labels and subjects depend on the site alone."""
    labels = np.tile(CLASSES, subjects)[:subjects].repeat(images)
    hits = np.random.default_rng(seed).random(len(labels)) < hit_rate
    wrong = np.where(labels == "benign", "malignant", "benign")
    names = tuple(f"{site}-{number}" for number in range(subjects) for _ in range(images))
    return SiteOutcomes(site, names, tuple(labels), tuple(np.where(hits, labels, wrong)))


def worsened(model, share, seed):
    """The same model with this share of its right answers turned wrong: candidate and champion stay paired."""
    rng = np.random.default_rng(seed)
    spoilt = tuple("neither" if rng.random() < share else answer for answer in model.predicted)
    return dataclasses.replace(model, predicted=spoilt)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4), st.floats(0, 1))
def test_identical_model_always_passes_a_past_site(seed, subjects, images, hit_rate):
    model = outcomes("north", hit_rate, subjects, seed, images)
    decision = run_gate([model], [model], ["north"], PLAN)
    assert decision.accepted
    assert decision.findings[0].lower_bound == decision.findings[0].difference == 0


def test_model_worse_by_fifteen_points_on_a_hundred_subjects_is_nearly_always_rejected():
    # Power at a difference of -0.15 against an observed loss of at most 0.03: at most 1 of 200 may slip through.
    champions = [outcomes("north", 0.9, 100, seed) for seed in range(200)]
    accepted = [
        run_gate([worsened(model, 0.15 / 0.9, seed)], [model], ["north"], PLAN).accepted
        for seed, model in enumerate(champions)
    ]
    assert sum(accepted) <= 1


def test_model_exactly_at_the_margin_is_accepted_no_more_often_than_the_confidence_allows():
    # The true drop equals the margin (0.05), so each acceptance is an error; 10 % nominal, 200 seeds, three deviations.
    bound_only = dataclasses.replace(PLAN, past_site_margin=-0.05, past_site_drop=1.0)
    champions = [outcomes("north", 1.0, 120, seed) for seed in range(200)]
    accepted = [
        run_gate([worsened(model, 0.05, seed + 1000)], [model], ["north"], bound_only).accepted
        for seed, model in enumerate(champions)
    ]
    assert np.mean(accepted) <= 0.10 + 3 * np.sqrt(0.1 * 0.9 / 200)


def test_equally_good_model_on_enough_subjects_is_usually_accepted():
    decisions = [
        run_gate([outcomes("north", 0.9, 300, seed + 500)], [outcomes("north", 0.9, 300, seed)], ["north"], PLAN)
        for seed in range(60)
    ]
    assert np.mean([decision.accepted for decision in decisions]) >= 0.6


def test_bound_is_wider_when_one_patient_brings_many_images():
    # Ten images a subject, right or wrong together: the evidence is 40 subjects, not 400 images.
    labels = tuple(np.tile(CLASSES, 20).repeat(10))
    rights = np.random.default_rng(3).random(40) < 0.8
    predicted = tuple(label if rights[place // 10] else "neither" for place, label in enumerate(labels))
    grouped = SiteOutcomes("north", tuple(f"s{place // 10}" for place in range(400)), labels, predicted)
    alone = dataclasses.replace(grouped, subjects=tuple(f"s{place}" for place in range(400)))
    champions = [dataclasses.replace(one, predicted=labels) for one in (grouped, alone)]
    grouped_bound, alone_bound = (
        run_gate([one], [champion], ["north"], PLAN).findings[0].lower_bound
        for one, champion in zip((grouped, alone), champions, strict=True)
    )
    assert grouped_bound < alone_bound < 0


def test_bound_agrees_with_a_plain_loop_over_the_domain_metric():
    candidate, champion = outcomes("north", 0.7, 25, 1, images=2), outcomes("north", 0.8, 25, 2, images=2)
    rng, rows = np.random.default_rng(9), np.arange(50).reshape(25, 2)
    differences = []
    for _ in range(2000):
        picked = rows[rng.integers(25, size=25)].ravel()
        labels = [candidate.labels[row] for row in picked]
        scores = [
            balanced_accuracy(labels, [model.predicted[row] for row in picked]) for model in (candidate, champion)
        ]
        differences.append(scores[0] - scores[1])
    finding = run_gate([candidate], [champion], ["north"], ChangePlan(bootstrap_draws=20_000)).findings[0]
    assert finding.lower_bound == pytest.approx(np.quantile(differences, 0.1), abs=0.02)


def test_gate_does_not_depend_on_chance_or_on_the_order_of_sites():
    sites = [outcomes(site, 0.8, 40, seed) for seed, site in enumerate(("a", "b", "c"))]
    rivals = [outcomes(site, 0.8, 40, seed + 9) for seed, site in enumerate(("a", "b", "c"))]
    forward = run_gate(sites, rivals, ["a", "b"], PLAN)
    backward = run_gate(sites[::-1], rivals[::-1], ["b", "a"], PLAN)
    assert forward == run_gate(sites, rivals, ["a", "b"], PLAN)
    assert {finding.site: finding for finding in forward.findings} == {
        finding.site: finding for finding in backward.findings
    }


def test_new_site_must_gain_strictly():
    model = outcomes("south", 0.8, 50, 1)
    (finding,) = run_gate([model], [model], [], PLAN).findings
    assert (finding.role, finding.passed, finding.limit, finding.difference) == ("new", False, 0.0, 0.0)
    assert run_gate([model], [worsened(model, 0.1, 1)], [], PLAN).accepted


def test_one_failing_site_rejects_the_candidate_and_every_reason_holds_its_numbers():
    north, south = outcomes("north", 0.9, 80, 1), outcomes("south", 0.5, 80, 2)
    better = outcomes("south", 0.9, 80, 3)
    decision = run_gate([worsened(north, 0.4, 1), better], [north, south], ["north"], PLAN)
    assert not decision.accepted
    past, new = decision.findings
    assert (past.role, past.passed, new.role, new.passed) == ("past", False, "new", True)
    for finding in decision.findings:
        for number in (f"{finding.candidate:.3f}", f"{finding.champion:.3f}", f"{finding.difference:+.3f}", "80"):
            assert number in finding.reason
    assert f"{past.lower_bound:+.3f}" in past.reason
    assert "not above the limit -0.100, and the observed loss is larger than 0.030" in past.reason
    assert (decision.margin, decision.confidence) == (PLAN.past_site_margin, PLAN.confidence)


def test_a_loss_that_is_seen_is_refused_even_where_the_bound_would_allow_it():
    champion = outcomes("north", 1.0, 2000, 1)
    candidate = worsened(champion, 0.05, 1)
    (finding,) = run_gate([candidate], [champion], ["north"], PLAN).findings
    assert finding.lower_bound > PLAN.past_site_margin
    assert not finding.passed
    assert "above the limit -0.100, and the observed loss is larger than 0.030" in finding.reason
    assert run_gate([candidate], [champion], ["north"], dataclasses.replace(PLAN, past_site_drop=0.07)).accepted


def test_past_site_with_one_subject_falls_back_on_the_observed_difference_and_says_so():
    candidate, champion = outcomes("north", 1.0, 1, 1, images=4), outcomes("north", 1.0, 1, 2, images=4)
    (finding,) = run_gate([candidate], [champion], ["north"], PLAN).findings
    assert finding.passed
    assert "for want of a second subject" in finding.reason


def test_first_version_is_accepted_only_above_chance():
    (good,) = run_gate([outcomes("north", 0.9, 60, 1)], [], [], PLAN).findings
    assert (good.role, good.champion, good.passed, good.limit) == ("new", None, True, 0.5)
    (guess,) = run_gate([outcomes("north", 0.5, 60, 1)], [], [], PLAN).findings
    assert not guess.passed
    assert "chance, 0.500" in guess.reason


def test_guessing_first_version_is_accepted_no_more_often_than_the_confidence_allows():
    accepted = [run_gate([outcomes("north", 0.5, 80, seed)], [], [], PLAN).accepted for seed in range(200)]
    assert np.mean(accepted) <= 0.10 + 3 * np.sqrt(0.1 * 0.9 / 200)


def test_class_that_vanishes_from_a_draw_does_not_count_there():
    # One malignant subject of four: a third of the draws lack it, and none may divide by zero.
    labels = ("benign", "benign", "benign", "malignant")
    model = SiteOutcomes("north", ("a", "b", "c", "d"), labels, labels)
    (finding,) = run_gate([model], [dataclasses.replace(model, predicted=("benign",) * 4)], ["north"], PLAN).findings
    assert finding.difference == 0.5
    assert finding.lower_bound == 0


@pytest.mark.parametrize(
    ("candidate", "champion", "past", "complaint"),
    [
        (["north"], ["north"], ["north", "south"], "past site 'south'"),
        (["north", "south"], ["north"], ["north"], "champion was not evaluated on site 'south'"),
        (["north"], [], ["north"], "champion was not evaluated"),
        ([], [], [], "0 sites"),
        (["north", "north"], ["north"], [], "two sets"),
    ],
)
def test_missing_or_double_sites_are_conflicts(candidate, champion, past, complaint):
    with pytest.raises(ConflictError, match=complaint):
        run_gate(
            [outcomes(site, 0.9, 10, 1) for site in candidate], [outcomes(s, 0.9, 10, 1) for s in champion], past, PLAN
        )


def test_models_asked_about_different_samples_are_a_conflict():
    model = outcomes("north", 0.9, 10, 1)
    for change in ({"subjects": model.subjects[::-1]}, {"labels": model.labels[::-1]}):
        with pytest.raises(ConflictError, match="different samples"):
            run_gate([model], [dataclasses.replace(model, **change)], ["north"], PLAN)
    with pytest.raises(ConflictError, match="9 predictions"):
        run_gate([dataclasses.replace(model, predicted=model.predicted[1:])], [model], ["north"], PLAN)


def scored(site, scores, chance=0.2, images=1):
    """A segmentation model: one Dice score per image, so many images a subject."""
    names = tuple(f"{site}-{number // images}" for number in range(len(scores)))
    return SiteOutcomes(site, names, scores=tuple(float(score) for score in scores), chance=chance)


def dice_scores(mean, count, seed):
    return np.clip(np.random.default_rng(seed).normal(mean, 0.06, count), 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4), st.floats(0, 1))
def test_identical_scores_always_pass_a_past_site(seed, subjects, images, mean):
    model = scored("north", dice_scores(mean, subjects * images, seed), images=images)
    decision = run_gate([model], [model], ["north"], PLAN)
    assert decision.accepted
    assert decision.findings[0].lower_bound == decision.findings[0].difference == 0


def test_bound_of_scores_agrees_with_a_plain_loop_over_their_mean():
    candidate = scored("north", dice_scores(0.7, 50, 1), images=2)
    champion = scored("north", dice_scores(0.8, 50, 2), images=2)
    rng, rows = np.random.default_rng(9), np.arange(50).reshape(25, 2)
    gaps = np.array(candidate.scores) - np.array(champion.scores)
    differences = [gaps[rows[rng.integers(25, size=25)].ravel()].mean() for _ in range(2000)]
    finding = run_gate([candidate], [champion], ["north"], ChangePlan(bootstrap_draws=20_000)).findings[0]
    assert finding.difference == pytest.approx(gaps.mean())
    assert finding.lower_bound == pytest.approx(np.quantile(differences, 0.1), abs=0.003)


def test_scores_that_fall_on_a_past_site_are_rejected_and_a_new_site_must_gain():
    north, south = scored("north", dice_scores(0.8, 20, 1)), scored("south", dice_scores(0.5, 14, 2))
    worse = scored("north", np.array(north.scores) - 0.04)
    better = scored("south", np.array(south.scores) + 0.1)
    past, new = run_gate([worse, better], [north, south], ["north"], PLAN).findings
    assert (past.passed, new.passed) == (False, True)
    assert "the observed loss is larger than 0.030" in past.reason
    assert new.difference == pytest.approx(0.1)
    assert not run_gate([south], [south], [], PLAN).accepted
    assert run_gate([scored("north", np.array(north.scores) - 0.02), better], [north, south], ["north"], PLAN).accepted


def test_scores_at_the_margin_are_accepted_no_more_often_than_the_confidence_allows():
    # The true drop equals the margin (0.05); each image's own change varies by 0.05. 200 seeds, three deviations.
    bound_only = dataclasses.replace(PLAN, past_site_margin=-0.05, past_site_drop=1.0)
    accepted = []
    for seed in range(200):
        champion = scored("north", dice_scores(0.7, 40, seed))
        change = np.random.default_rng(seed + 1000).normal(-0.05, 0.05, 40)
        candidate = scored("north", np.clip(np.array(champion.scores) + change, 0, 1))
        accepted.append(run_gate([candidate], [champion], ["north"], bound_only).accepted)
    assert np.mean(accepted) <= 0.10 + 3 * np.sqrt(0.1 * 0.9 / 200)


def test_first_scored_version_must_beat_what_a_constant_answer_reaches():
    (good,) = run_gate([scored("north", dice_scores(0.5, 20, 1))], [], [], PLAN).findings
    assert (good.role, good.passed, good.limit) == ("new", True, 0.2)
    (constant,) = run_gate([scored("north", [0.2] * 20)], [], [], PLAN).findings
    assert not constant.passed
    assert "chance, 0.200" in constant.reason


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (scored("north", [0.5] * 9), "different samples"),
        (outcomes("north", 0.9, 10, 1), "different samples"),
        (scored("north", [0.5] * 9 + [1.01]), "score of 1.01"),
        (scored("north", [0.5] * 9 + [float("nan")]), "score of nan"),
        (dataclasses.replace(outcomes("north", 0.9, 10, 1), scores=(0.5,) * 10), "scores alone"),
        (SiteOutcomes("north", ()), "0 subjects"),
    ],
)
def test_scores_that_do_not_belong_together_are_a_conflict(candidate, complaint):
    with pytest.raises(ConflictError, match=complaint):
        run_gate([candidate], [scored("north", [0.5] * 10)], [], PLAN)


def test_plan_without_draws_is_a_settings_error():
    model = outcomes("north", 0.9, 10, 1)
    with pytest.raises(SettingsError, match="0 bootstrap draws"):
        run_gate([model], [model], ["north"], ChangePlan(bootstrap_draws=0))


def test_two_thousand_draws_of_four_hundred_subjects_take_a_tenth_of_a_second():
    candidate, champion = outcomes("north", 0.8, 400, 1, images=5), outcomes("north", 0.8, 400, 2, images=5)
    used = []
    for _ in range(3):
        begun = time.process_time()
        run_gate([candidate], [champion], ["north"], ChangePlan())
        used.append(time.process_time() - begun)
    assert min(used) < 0.1
