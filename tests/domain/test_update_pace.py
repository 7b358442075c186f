"""Cooldown and budget: which updates wait, until when, and which do not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.domain.change_plan import ChangePlan
from continual.domain.update_pace import MONTH, JudgedUpdate, update_pause

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def judged(*days, site="north"):
    return [JudgedUpdate(site, START + day * DAY) for day in days]


def hold(plan, day, updates, *, site="north", urgent=False):
    return update_pause(plan, site, updates, START + day * DAY, urgent=urgent)


def test_the_default_plan_holds_nothing_back():
    assert hold(ChangePlan(), 0.1, judged(*[0] * 50)) is None


def test_a_cooldown_holds_its_own_site_until_it_is_over_and_says_until_when():
    plan = ChangePlan(cooldown_days=14)
    held = hold(plan, 13.9, judged(-40, 0))
    assert held.reason == "cooldown of 14 days at north until 2026-03-15 00:00 UTC"
    assert held.until == START + 14 * DAY
    assert hold(plan, 14, judged(-40, 0)) is None
    assert hold(plan, 1, judged(0), site="south") is None


def test_a_budget_counts_all_sites_and_the_oldest_of_it_comes_back_after_thirty_days():
    plan = ChangePlan(updates_per_month=2)
    updates = [*judged(0), *judged(10, site="south")]
    assert hold(plan, 9, judged(0)) is None
    held = hold(plan, 11, updates, site="west")
    assert held.reason == "budget of 2 updates in 30 days is spent until 2026-03-31 00:00 UTC"
    assert hold(plan, 30, updates, site="west") is None


def test_an_urgent_update_waits_for_the_budget_alone():
    plan = ChangePlan(cooldown_days=14, updates_per_month=2)
    assert hold(plan, 1, judged(0), urgent=True) is None
    assert hold(plan, 2, judged(0, 1), urgent=True).until == START + MONTH
    # Of two holds the longer one is told.
    assert hold(plan, 2, judged(0, 1)).until == START + MONTH
    assert hold(plan, 29, judged(0, 28)).until == START + 42 * DAY


def test_the_longest_cooldown_holds_for_a_hundred_years():
    assert hold(ChangePlan(cooldown_days=36_500), 1, judged(0)).until == START + 36_500 * DAY


@given(
    days=st.lists(st.floats(0, 120), max_size=12),
    budget=st.integers(1, 4),
    cooldown=st.floats(0, 50),
    at=st.floats(0, 130),
)
def test_when_a_hold_is_over_nothing_holds_any_more(days, budget, cooldown, at):
    plan = ChangePlan(updates_per_month=budget, cooldown_days=cooldown)
    past = judged(*[day for day in days if day <= at])
    held = hold(plan, at, past)
    if held is not None:
        assert held.until > START + at * DAY
        assert update_pause(plan, "north", past, held.until, urgent=False) is None
    elif past:
        recent = [update for update in past if update.judged_at > START + at * DAY - MONTH]
        assert len(recent) < budget


@pytest.mark.parametrize("urgent", [True, False])
def test_nothing_judged_holds_nothing(urgent):
    assert hold(ChangePlan(cooldown_days=5, updates_per_month=1), 0, [], urgent=urgent) is None
