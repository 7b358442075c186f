import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring.evidence import LARGEST_BET, MOST, Past, e_value, evidence_over_time
from monitoring.windows import pool

PIXELS, EMBEDDINGS = SignalFamily.PIXEL_STATISTICS, SignalFamily.EMBEDDINGS


def _after(p_values, threshold=20.0, family=PIXELS):
    """The evidence after windows whose one tested family had these p-values."""
    past = Past()
    for p_value in p_values:
        found = evidence_over_time(past, {family: p_value}, threshold)
        past = Past((), (*past.e_values, found.e_values))
    return found


def test_a_bet_is_fair_its_mean_over_uniform_p_values_is_one():
    # The integral from 1e-9 on; below lies less than 1 / ln(1e9) = .05 of it.
    edges = np.logspace(-9, 0, 40_001)
    middles = np.sqrt(edges[1:] * edges[:-1])
    assert 0.95 < sum(e_value(p) * width for p, width in zip(middles, np.diff(edges), strict=True)) <= 1.0


@given(some.floats(1e-300, 1.0))
def test_a_bet_grows_as_the_p_value_falls_and_is_never_worth_more_than_its_inverse(p_value):
    assert 0.5 <= e_value(p_value) <= min(LARGEST_BET, 1 / p_value)
    assert e_value(p_value) >= e_value(min(1.0, 1.01 * p_value)) - 1e-9


def test_fair_years_alarm_as_rarely_as_the_threshold_says():
    # 200 site-years of 52 windows, all four families moving together; 10 alarms are allowed, more than 18 would have
    # probability .006 at that rate. The families' mean holds under any dependence.
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        past = Past()
        for p_value in generator.random(52):
            found = evidence_over_time(past, dict.fromkeys(SignalFamily, float(p_value)), 20.0)
            past = Past((), (*past.e_values, found.e_values))
            if found.called_at is not None:
                alarms += 1
                break
    assert alarms <= 18


def test_a_change_after_a_quiet_year_is_seen_within_a_few_windows_and_dated():
    quiet = list(np.random.default_rng(2).random(100))
    assert _after(quiet).called_at is None
    late = _after([*quiet, 0.001, 0.001, 0.001, 0.001, 0.001])
    assert late.called_at == 105
    # The windows just before may have leant the same way by chance.
    assert 80 < late.since <= 101


def test_what_was_called_stands_however_quiet_the_windows_after_it():
    called = evidence_over_time(Past(), {PIXELS: 0.01}, 20.0, stands_out=True)
    assert (called.called_at, called.value < 20) == (1, True)
    later = evidence_over_time(Past((), (called.e_values,), called.called_at), {PIXELS: 0.9}, 20.0)
    assert (later.called_at, later.windows) == (1, 2)
    assert evidence_over_time(Past((), (called.e_values,)), {PIXELS: 0.01}, 20.0, stands_out=True).called_at is None


def test_a_family_that_was_not_tested_says_nothing_and_costs_nothing_else():
    found = _after([0.001, 0.001])
    assert found.families["embeddings"] == pytest.approx(1.0)
    assert found.e_values["embeddings"] == 1.0
    assert found.value == pytest.approx((found.families["pixel_statistics"] + 3) / 4)


def test_evidence_stays_finite_however_strong_and_long():
    found = _after([1e-300] * 200)
    assert found.called_at == 200
    assert found.value <= MOST
    assert found.since == 1


def test_windows_are_pooled_with_the_subjects_of_each_site_kept_apart(make_window):
    rows = np.arange(6.0).reshape(3, 2)
    pooled = pool(
        [make_window(rows, "north", subjects="aab"), make_window(rows, "south", subjects="abb", outputs=rows)]
    )
    assert pooled.site == "north"
    assert pooled.subject_count == 4
    assert pooled.outputs is None
    with pytest.raises(WindowError, match=r"windows of site north have \[2, 3\] columns"):
        pool([make_window(rows), make_window(np.ones((2, 3)))])
