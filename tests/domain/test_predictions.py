from datetime import UTC, datetime

import pytest

from continual.domain.predictions import LabelledPrediction, Prediction, performance_of

MARCH, APRIL = datetime(2026, 3, 31, 23, 59, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)


def labelled(label, said, *, digest="a", at=MARCH, version=1, site="north", subject=None, trained_on=False):
    scores = {"benign": 0.9, "malignant": 0.1} if said == "benign" else {"benign": 0.1, "malignant": 0.9}
    prediction = Prediction("lesion", version, site, digest, scores, at)
    return LabelledPrediction(prediction, label, datetime(2026, 6, 1, tzinfo=UTC), subject, trained_on, site)


def test_performance_belongs_to_the_version_and_month_of_the_prediction_whenever_the_label_came():
    rows = performance_of(
        [
            labelled("benign", "benign", at=APRIL),
            labelled("benign", "malignant", digest="b"),
            labelled("malignant", "malignant", digest="c", version=2),
        ],
        by_month=True,
    )
    assert [(row.version, row.month, row.balanced_accuracy) for row in rows] == [
        (1, "2026-03", 0.0),
        (1, "2026-04", 1.0),
        (2, "2026-03", 1.0),
    ]


def test_a_balanced_accuracy_is_over_the_classes_that_came_and_its_interval_over_subjects():
    many = [labelled("benign", "benign", digest=f"b{n}", subject=f"s{n // 2}") for n in range(40)]
    few = [labelled("malignant", "benign", digest=f"m{n}", subject=f"t{n}") for n in range(4)]
    (row,) = performance_of([*many, *few])
    assert (row.labelled, row.subjects, row.balanced_accuracy) == (44, 24, 0.5)
    assert 0.5 <= row.low <= row.high <= 1
    (whole,) = performance_of(many)
    assert (whole.balanced_accuracy, whole.low, whole.high) == (1, 1, 1)


def test_other_classes_and_pictures_a_version_learnt_from_are_counted_and_not_scored():
    (row,) = performance_of(
        [labelled("benign", "benign"), labelled("cyst", "benign"), labelled("benign", "malignant", trained_on=True)]
    )
    assert (row.labelled, row.unscored, row.balanced_accuracy) == (1, 2, 1.0)
    (nothing,) = performance_of([labelled("cyst", "benign")])
    assert (nothing.labelled, nothing.balanced_accuracy, nothing.low) == (0, None, None)
    assert performance_of([]) == []


def test_sites_are_told_apart_where_asked_and_one_subject_has_no_interval():
    rows = performance_of([labelled("benign", "benign"), labelled("benign", "malignant", site="")], by_site=True)
    assert [(row.site, row.balanced_accuracy, row.low) for row in rows] == [("", 0.0, None), ("north", 1.0, None)]
    assert (
        pytest.approx(0.5)
        == performance_of([labelled("benign", s, digest=s) for s in ("benign", "malignant")])[0].balanced_accuracy
    )
