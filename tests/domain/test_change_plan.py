"""The change plan's own check."""

import json

import pytest

from continual.domain.change_plan import ChangePlan
from continual.domain.errors import SettingsError


@pytest.mark.parametrize("name", ["confidence", "alpha", "quarantine_limit"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_levels_and_shares_must_lie_between_zero_and_one(name, value):
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        ChangePlan(**{name: value})


def test_a_replay_memory_cannot_be_negative_and_may_be_empty():
    with pytest.raises(SettingsError, match="replay_samples is -1"):
        ChangePlan(replay_samples=-1)
    with pytest.raises(SettingsError, match="replay_bytes is -5"):
        ChangePlan(replay_bytes=-5)
    assert ChangePlan(replay_samples=0).replay_samples == 0


def test_a_plan_must_allow_a_strategy():
    with pytest.raises(SettingsError, match="at least 1"):
        ChangePlan(strategies=())


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 19), (0.01, 99), (0.2, 4), (0.03, 33)])
def test_permutations_must_be_enough_to_reach_the_level(alpha, fewest):
    # The smallest p value is 1 / (1 + permutations).
    assert 1 / (1 + fewest) <= alpha < 1 / fewest
    assert ChangePlan(alpha=alpha, permutations=fewest).permutations == fewest
    with pytest.raises(SettingsError, match=f"at least {fewest}"):
        ChangePlan(alpha=alpha, permutations=fewest - 1)


def test_a_plan_survives_its_way_through_json():
    plan = ChangePlan(strategies=("replay", "ewc"), alpha=0.01, seed=7)
    read = json.loads(json.dumps(plan.as_record()))
    assert ChangePlan.from_record(read) == plan


def test_a_plan_of_the_first_release_has_the_defaults_of_what_came_since():
    read = json.loads(json.dumps(ChangePlan(replay_samples=30).as_record()))
    older = {name: value for name, value in read.items() if name not in {"replay_bytes", "replay_policy"}}
    plan = ChangePlan.from_record(older)
    assert (plan.replay_samples, plan.replay_bytes, plan.replay_policy) == (30, 0, "class_and_site_balanced")


@pytest.mark.parametrize("name", ["updates_per_month", "rolling_windows"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_what_paces_updates_and_windows_is_a_number_from_zero_on(name, value):
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        ChangePlan(**{name: value})


@pytest.mark.parametrize("name", ["window_days", "cooldown_days"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 36_500.1, 1e12])
def test_days_of_waiting_lie_between_none_and_a_hundred_years(name, value):
    assert getattr(ChangePlan(**{name: 36_500}), name) == 36_500
    with pytest.raises(SettingsError, match=f"{name} is .*, must lie between 0 and 36500; correct the plan"):
        ChangePlan(**{name: value})


def test_harm_clears_at_a_margin_that_is_no_larger_than_the_one_that_finds_it():
    assert ChangePlan(harm_margin=0.05, harm_cleared=0.05).harm_cleared == 0.05
    for value in (0.06, float("nan")):
        with pytest.raises(SettingsError, match=f"harm_cleared is {value}, must be at most harm_margin 0.05"):
            ChangePlan(harm_margin=0.05, harm_cleared=value)


def test_a_plan_of_an_earlier_release_waits_for_nothing_between_updates():
    read = json.loads(json.dumps(ChangePlan(harm_margin=0.01).as_record()))
    since = {"cooldown_days", "updates_per_month", "harm_cleared", "rolling_windows"}
    plan = ChangePlan.from_record({name: value for name, value in read.items() if name not in since})
    assert (plan.cooldown_days, plan.updates_per_month, plan.harm_cleared) == (0, 0, None)
