import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact, ks_2samp

from monitoring.column_tests import homogeneity_p_value, p_values
from monitoring.subject_tables import Column


def test_number_columns_carry_the_kolmogorov_smirnov_p_value_of_the_recorded_values():
    generator = np.random.default_rng(3)
    known, new = generator.normal(size=80), generator.normal(0.3, size=50)
    column = Column("sharpness", True, (*known, None, None), (None, *new))
    assert p_values([column]) == pytest.approx([ks_2samp(known, new).pvalue])


def test_p_values_come_back_in_the_order_of_the_columns():
    columns = [
        Column("b", False, ("x",) * 30, ("y",) * 30),
        Column("a", True, tuple(range(30)), tuple(range(30))),
        Column("c", False, ("x", "y") * 15, ("x", "y") * 15),
    ]
    assert p_values(columns) == pytest.approx([1 / 20_000, 1.0, 1.0])


def test_two_categories_agree_with_fishers_exact_test():
    # Equal windows: both order tables alike only when the distribution is symmetric.
    known, new = pd.Series(["x"] * 10 + ["y"] * 10), pd.Series(["x"] * 4 + ["y"] * 16)
    assert homogeneity_p_value(known, new) == pytest.approx(fisher_exact([[10, 10], [4, 16]])[1], abs=0.01)


def test_one_subject_of_a_new_category_is_no_alarm_and_thirty_are():
    known = pd.Series(["x"] * 300)
    assert homogeneity_p_value(known, pd.Series(["x"] * 59 + ["new"])) > 0.1
    assert homogeneity_p_value(known, pd.Series(["x"] * 30 + ["new"] * 30)) < 0.001


def test_category_test_keeps_its_level_with_rare_categories():
    # 400 looks at nothing: 5 % is 20 alarms, 34 are exceeded with probability .001; discreteness only lowers it.
    shares = [0.9, 0.05, 0.03, 0.02]
    alarms = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        known, new = (pd.Series(generator.choice(list("wxyz"), size=n, p=shares)) for n in (100, 25))
        alarms += homogeneity_p_value(known, new) <= 0.05
    assert 3 <= alarms <= 34


def test_a_column_of_extreme_values_still_gives_a_p_value():
    column = Column("counts", True, tuple(1e12 + i for i in range(20)), (0.0,) * 20)
    assert 0 < p_values([column])[0] < 1e-6


def test_windows_whose_exact_sum_overflows_still_give_a_p_value():
    generator = np.random.default_rng(1)
    column = Column("mean", True, tuple(generator.normal(size=997)), tuple(generator.normal(1.0, size=991)))
    assert 0 < p_values([column])[0] < 1e-20
