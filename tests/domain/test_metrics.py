"""Metrics against numbers worked out by hand, and one property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.metrics import (
    area_under_roc,
    balanced_accuracy,
    calibration_floor,
    chance_dice,
    chance_level,
    dice,
    expected_calibration_error,
    forgetting_per_site,
    recall_per_class,
    summarise,
)
from continual.domain.samples import IGNORED

# Site b scored 0.95 before it was learnt: nobody forgets what was never taught, so 0.95 is not its best earlier row.
MATRIX = [[0.90, 0.95, 0.40], [0.70, 0.80, 0.50], [0.60, 0.85, 0.90]]
SITES = ["a", "b", "c"]
CHANCE = [0.5, 0.5, 0.25]


def test_balanced_accuracy_is_the_mean_of_the_classes_recalls():
    labels, predicted = ["x"] * 4 + ["y"] * 2, ["x", "x", "x", "y", "y", "x"]
    assert recall_per_class(labels, predicted) == {"x": 0.75, "y": 0.5}
    assert balanced_accuracy(labels, predicted) == pytest.approx(0.625)


def test_a_class_that_is_only_guessed_does_not_enter_the_mean():
    assert recall_per_class(["x", "x"], ["x", "long name of another class"]) == {"x": 0.5}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=1), st.integers(2, 9))
@settings(deadline=None)
def test_balanced_accuracy_does_not_move_with_prevalence(pairs, times):
    more = pairs + [pair for pair in pairs if pair[0] == pairs[0][0]] * (times - 1)
    once, often = (balanced_accuracy([p[0] for p in group], [p[1] for p in group]) for group in (pairs, more))
    assert often == pytest.approx(once)
    assert 0 <= once <= 1


def test_a_constant_guess_reaches_exactly_the_chance_level():
    labels = ["x"] * 7 + ["y"] * 2 + ["z"]
    assert balanced_accuracy(labels, ["x"] * 10) == pytest.approx(chance_level(labels)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("labels", "predicted"), [([], []), (["x"], []), (["x"], ["x", "y"])])
def test_balanced_accuracy_refuses_nothing_and_unequal_lengths(labels, predicted):
    with pytest.raises(ValueError, match="at least 1|one of each"):
        balanced_accuracy(labels, predicted)


def test_the_summary_of_a_result_matrix_is_what_the_papers_formulas_give():
    scores = summarise(MATRIX, SITES, CHANCE)
    assert scores.acc == pytest.approx((0.60 + 0.85 + 0.90) / 3)
    assert scores.bwt == pytest.approx(((0.60 - 0.90) + (0.85 - 0.80)) / 2)
    assert scores.fwt == pytest.approx(((0.95 - 0.50) + (0.50 - 0.25)) / 2)
    assert dict(scores.forgetting) == pytest.approx({"a": 0.90 - 0.60, "b": 0.80 - 0.85, "c": 0.0})
    assert scores.worst_site == pytest.approx(0.60)
    assert scores.worst_site_drop == pytest.approx(0.30)


def test_forgetting_is_held_against_the_best_row_since_the_site_was_learnt():
    matrix = np.array([[0.6, 0.0, 0.0], [0.8, 0.5, 0.0], [0.7, 0.4, 0.9]])
    assert forgetting_per_site(matrix) == pytest.approx([0.8 - 0.7, 0.5 - 0.4])


def test_one_site_has_nothing_to_forget_or_to_transfer():
    scores = summarise([[0.8]], ["a"], [0.5])
    assert (scores.acc, scores.bwt, scores.fwt, scores.worst_site_drop) == (0.8, 0.0, 0.0, 0.0)
    assert dict(scores.forgetting) == {"a": 0.0}


@pytest.mark.parametrize("matrix", [[], [[0.5, 0.5]], [[0.5], [0.5]]])
def test_a_matrix_that_is_not_square_in_its_sites_is_refused(matrix):
    with pytest.raises(ValueError, match="one row per experience"):
        summarise(matrix, ["a", "b"], [0.5, 0.5])


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy():
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    sure = np.ones(5)
    assert expected_calibration_error(sure, np.ones(5, bool)) == 0.0
    assert expected_calibration_error(sure, np.zeros(5, bool)) == 1.0


def test_honest_confidences_show_an_error_of_chance_that_falls_with_the_samples():
    random = np.random.default_rng(0)
    few, many = random.uniform(0.6, 1.0, 80), random.uniform(0.6, 1.0, 20_000)
    seen = [expected_calibration_error(few, random.random(80) < few) for _ in range(300)]
    assert calibration_floor(few) == pytest.approx(np.mean(seen), abs=0.01)
    assert calibration_floor(few) > 0.05
    assert calibration_floor(many) < 0.01
    assert calibration_floor(np.ones(5)) == 0.0


def pairs_won(labels, scores, name, column):
    """The same area, pair by pair."""
    inside = [row[column] for row, label in zip(scores, labels, strict=True) if label == name]
    outside = [row[column] for row, label in zip(scores, labels, strict=True) if label != name]
    return np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), min_size=2, max_size=30))
def test_the_area_under_the_roc_curve_counts_pairs_and_halves_ties(rows):
    labels, scores = [row[0] for row in rows], np.array([[row[1], 4 - row[1]] for row in rows], dtype=float)
    area = area_under_roc(labels, ("a", "b", "absent"), np.column_stack([scores, np.zeros(len(rows))]))
    if len(set(labels)) < 2:
        assert area is None
    else:
        assert area == pytest.approx(np.mean([pairs_won(labels, scores, n, c) for c, n in enumerate("ab")]))


def test_the_area_under_the_roc_curve_refuses_scores_of_another_shape():
    with pytest.raises(ValueError, match=r"\(2, 2\) for 3 labels and 2 classes"):
        area_under_roc(["a", "b", "b"], ("a", "b"), np.zeros((2, 2)))


def mask_of(*rows: str) -> np.ndarray:
    """A mask written in digits; a dot lies outside the field of view."""
    return np.array([[IGNORED if cell == "." else int(cell) for cell in row] for row in rows], dtype=np.uint8)


def test_dice_is_twice_what_both_mark_over_what_each_marks():
    # Class 1: both mark 2 pixels, the mask 3, the prediction 4.
    assert dice(mask_of("1110", "0000"), mask_of("0110", "0110"), 1) == pytest.approx(2 * 2 / (3 + 4))


def test_dice_is_the_mean_over_the_classes_that_either_holds():
    mask, predicted = mask_of("1100", "0020"), mask_of("1100", "0003")
    # Class 1 is whole, class 2 is missed, class 3 is made up, class 4 is in neither and does not count.
    assert dice(mask, predicted, 4) == pytest.approx((1 + 0 + 0) / 3)
    assert dice(mask, predicted, 1) == 1


def test_dice_never_looks_outside_the_field_of_view():
    mask = mask_of(".110", "..00")
    inside = dice(mask, mask_of("0100", "0000"), 1)
    assert inside == pytest.approx(2 / 3)
    assert dice(mask, mask_of("1100", "2100"), 2) == inside


def test_dice_is_one_when_nothing_is_there_and_nothing_was_said():
    empty = mask_of("0.0")
    assert dice(empty, mask_of("010"), 1) == 1
    assert dice(empty, mask_of("100"), 1) == 0


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, IGNORED]), st.sampled_from([0, 1, 2])), min_size=1))
@settings(deadline=None)
def test_dice_lies_between_zero_and_one_and_only_a_perfect_answer_reaches_it(pairs):
    mask, predicted = (np.array([values], dtype=np.uint8) for values in zip(*pairs, strict=True))
    score = dice(mask, predicted, 2)
    assert 0 <= score <= 1
    assert (score == 1) is all(true in (IGNORED, guess) for true, guess in pairs)


def test_dice_of_two_sizes_is_refused():
    with pytest.raises(ValueError, match="resample"):
        dice(mask_of("01"), mask_of("0"), 1)


def test_chance_of_dice_is_what_the_best_constant_answer_reaches():
    sparse, empty = mask_of("1000"), mask_of("0000")
    assert chance_dice([sparse], 1) == pytest.approx(2 / 5)
    # Of a half-empty set the background's answer is right on half.
    assert chance_dice([sparse, empty], 1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="0 masks"):
        chance_dice([], 1)
