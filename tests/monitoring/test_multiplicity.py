import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.multiplicity import critical_levels, holm

P_VALUES = st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=8)


def test_holm_matches_a_worked_example():
    # 4 x .005, 3 x .01, then 2 x .03 = .06, and .04 x 1 raised to the step before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES, st.floats(0.01, 0.2))
def test_a_test_is_rejected_exactly_when_its_p_value_meets_its_own_level(p_values, alpha):
    rejected = _step_down(p_values, alpha)
    levels = critical_levels(p_values, alpha)
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == rejected


@given(P_VALUES)
def test_adjusted_p_values_keep_the_order_and_never_fall_below_the_raw_ones(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted)[order]) >= 0)


def _step_down(p_values, alpha):
    """Holm as in the paper: walk up the sorted p-values until one fails."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
