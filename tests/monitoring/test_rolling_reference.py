"""What stands beside a look: the lagged rolling reference, and harm that clears at a margin of its own."""

from dataclasses import replace

import numpy as np
import pytest

from continual.domain.drift import Action, PerformanceEvidence, RiskEvidence, Verdict
from monitoring import Intake, Past, look

CLEAN = Intake(offered=100, quarantined=0)


@pytest.fixture
def watch(make_window, digits, quick_plan):
    """Reports on successive windows of 60 digits as bright as their factors say; the reference is 300 as they are."""

    def names(place):
        return [f"{place}-{number}" for number in range(60)]

    def run(brightness, **changed):
        rows = digits[np.random.default_rng(5).permutation(len(digits))]
        known, past, reports = make_window(rows[:300]), Past(), []
        for place, factor in enumerate(brightness):
            current = make_window(factor * rows[300 + 60 * place : 360 + 60 * place], subjects=names(place))
            report = look([known], current, replace(quick_plan, **changed), CLEAN, None, past)
            said = report.over_time
            past = Past((*past.windows, current), (*past.e_values, said.e_values), said.called_at)
            reports.append(report)
        return reports

    return run


def test_a_change_that_is_over_is_as_in_the_windows_before_and_said_to_be_older(watch):
    reports = watch([0.7] * 5)
    assert [report.verdict for report in reports] == [Verdict.COVARIATE_SHIFT] * 5
    assert [report.rolling and (report.rolling.first, report.rolling.last) for report in reports] == [
        None,
        None,
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    last = reports[-1].rolling
    assert not last.differs
    assert (last.subjects, last.level) == (180, 0.025)
    assert reports[-1].reason.endswith(
        "as in windows 1-3 (180 subjects) at level 0.025: the change is older than those"
    )


def test_a_site_that_goes_on_changing_differs_from_its_last_windows_too(watch):
    report = watch([0.8, 0.8, 0.5])[-1]
    assert report.rolling.differs
    assert min(report.rolling.p_values.values()) <= report.rolling.level
    assert "differs from window 1, too, at level 0.025: still changing, or changed since" in report.reason


def test_the_rolling_reference_forgets_windows_beyond_the_plans_number_and_none_is_none(watch):
    assert (watch([0.7] * 5, rolling_windows=2)[-1].rolling.first) == 2
    assert watch([0.7] * 4, rolling_windows=0)[-1].rolling is None


def test_a_quiet_site_is_not_held_against_its_last_windows(watch):
    reports = watch([1.0] * 3)
    assert [report.verdict for report in reports] == [Verdict.NO_DRIFT] * 3
    assert [report.rolling for report in reports] == [None] * 3


def measured(current):
    risk = RiskEvidence(0.7, 0.9, 0.95, p_value=0.001, level=0.025, milestone=1, labelled=40)
    return PerformanceEvidence("balanced_accuracy", 0.9, current, 600, 100, risk=risk)


@pytest.fixture
def judge_again(make_window, quick_plan):
    """The report on a window of a site with this performance, under a plan whose harm of .05 clears at .02."""

    def run(current, shift, *, harmed, cleared=0.02):
        generator = np.random.default_rng(0)
        known, new = (make_window(generator.normal(s, size=(40, 3)), n) for n, s in (("a", 0.0), ("b", shift)))
        plan = replace(quick_plan, harm_cleared=cleared)
        return look([known], new, plan, CLEAN, measured(current), Past(harmed=harmed))

    return run


@pytest.mark.parametrize(
    ("current", "harmed", "stands"),
    [(0.80, False, True), (0.86, False, False), (0.86, True, True), (0.80, True, True), (0.89, True, False)],
)
def test_harm_once_found_stands_until_the_smaller_margin_is_met(judge_again, current, harmed, stands):
    shifted = judge_again(current, 2.0, harmed=harmed)
    assert (shifted.verdict, shifted.harmed) == (Verdict.COVARIATE_SHIFT, stands)
    assert (shifted.action is Action.UPDATE) is stands
    quiet = judge_again(current, 0.0, harmed=harmed)
    assert (quiet.verdict is Verdict.CONCEPT_SHIFT, quiet.harmed) == (stands, stands)
    # The sentence names the smaller margin only where that alone makes it harm.
    assert ("stands until the fall is at most 0.02" in shifted.reason) is (current == 0.86 and harmed)


def test_judging_again_what_was_found_says_the_same(judge_again):
    for current in (0.80, 0.86, 0.89):
        first = judge_again(current, 2.0, harmed=False)
        assert judge_again(current, 2.0, harmed=first.harmed) == first


def test_without_a_second_margin_harm_comes_and_goes_with_the_first(judge_again):
    assert not judge_again(0.86, 2.0, harmed=True, cleared=None).harmed
