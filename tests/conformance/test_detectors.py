"""What every detector promises, run over the registry: a new one is tested by being listed."""

import json

import numpy as np
import pytest

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring import DETECTORS, Window
from monitoring.detectors import Effort

EFFORT = Effort(permutations=199, seed=3)
PAIRS = [
    pytest.param(detector, family, id=f"{name}-{family}")
    for name, detector in DETECTORS.items()
    for family in detector.families
]


def _window(values: np.ndarray, site: str, subjects: tuple[str, ...] | None = None) -> Window:
    """The same numbers in all four families, so that a shift of `values` is a shift for every detector."""
    rows = np.atleast_2d(values)
    return Window(
        site=site,
        subjects=subjects or tuple(f"{site}{i}" for i in range(len(rows))),
        embeddings=rows,
        outputs=rows,
        tags=tuple({"exposure": float(row[0]), "mode": "high" if row[0] > 1 else "low"} for row in rows),
        pixel_statistics=tuple({"mean": float(row[0]), "noise": float(row[1])} for row in rows),
    )


def _normal(seed: int, count: int, site: str, shift: float = 0.0) -> Window:
    return _window(np.random.default_rng(seed).normal(shift, size=(count, 3)), site)


def _measure(detector, family, reference, current):
    return detector.measure(reference, current, family, EFFORT)


def test_every_family_has_a_detector_and_every_name_is_its_key():
    assert {family for detector in DETECTORS.values() for family in detector.families} == set(SignalFamily)
    assert all(name == detector.name for name, detector in DETECTORS.items())


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_more_drift_scores_higher_and_has_a_smaller_p_value(detector, family):
    reference = _normal(1, 60, "a")
    rounds = [_measure(detector, family, reference, _normal(2, 40, "b", shift)) for shift in (0.0, 0.7, 3.0)]
    for some, more in zip(rounds, rounds[1:], strict=False):
        for before, after in zip(some, more, strict=True):
            assert after.score > before.score
            assert after.p_value <= before.p_value
    assert all(finding.p_value < 0.0125 for finding in rounds[-1])


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_p_values_lie_above_zero_and_up_to_one_and_details_are_plain_json(detector, family):
    for shift in (0.0, 50.0):
        for finding in _measure(detector, family, _normal(1, 60, "a"), _normal(2, 40, "b", shift)):
            assert 0 < finding.p_value <= 1
            assert np.isfinite(finding.score)
            json.dumps(dict(finding.detail), allow_nan=False)


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_a_detector_is_deterministic_under_its_seed(detector, family):
    windows = _normal(1, 60, "a"), _normal(2, 40, "b", 0.3)
    first, second = (_measure(detector, family, *windows) for _ in range(2))
    assert [(f.name, f.score, f.p_value) for f in first] == [(f.name, f.score, f.p_value) for f in second]


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_identical_windows_are_no_evidence(detector, family):
    findings = _measure(detector, family, _normal(1, 60, "a"), _normal(1, 60, "b"))
    assert findings
    assert all(finding.p_value > 0.9 for finding in findings)


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_constant_features_are_no_evidence(detector, family):
    findings = _measure(detector, family, _window(np.full((30, 3), 7.3), "a"), _window(np.full((20, 3), 7.3), "b"))
    assert all(finding.p_value == 1.0 for finding in findings)


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_two_constants_that_differ_are_seen(detector, family):
    findings = _measure(detector, family, _window(np.full((30, 3), 0.1), "a"), _window(np.full((20, 3), 5.0), "b"))
    assert all(finding.p_value < 0.0125 for finding in findings)
    assert findings


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_a_window_of_one_subject_gives_a_valid_p_value(detector, family):
    rows = np.random.default_rng(4).normal(size=(8, 3))
    one = _window(rows, "b", subjects=("only",) * 8)
    for windows in ((_normal(1, 30, "a"), one), (one, _normal(1, 30, "a")), (one, one)):
        assert all(0 < finding.p_value <= 1 for finding in _measure(detector, family, *windows))


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_copies_of_a_subjects_images_are_no_new_evidence(detector, family):
    reference, current = _normal(1, 40, "a"), _normal(2, 12, "b", 0.5)
    copied = _window(np.repeat(current.embeddings, 9, axis=0), "b", subjects=tuple(np.repeat(current.subjects, 9)))
    plain, copies = (_measure(detector, family, reference, window) for window in (current, copied))
    assert all(c.p_value == pytest.approx(p.p_value, abs=0.06) for p, c in zip(plain, copies, strict=True))


def test_no_detector_can_be_given_a_value_that_is_not_finite():
    with pytest.raises(WindowError, match="not finite"):
        _window(np.array([[0.0, 1.0, np.nan]]), "a")


@pytest.mark.parametrize(("detector", "family"), PAIRS)
def test_smaller_levels_ask_for_higher_scores(detector, family):
    for finding in _measure(detector, family, _normal(1, 60, "a"), _normal(2, 40, "b")):
        assert finding.smallest_alarming(0.01) > finding.smallest_alarming(0.2)
