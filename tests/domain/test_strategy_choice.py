"""The choice among candidates: cheapest first, but only among those that are not worse and lose nothing of the past."""

import json

import pytest

from continual.domain.strategy_choice import CandidateFigures, choose


def candidate(strategy, mean, cpu_seconds, worst_change=0.0):
    worst = None if worst_change is None else "north"
    return CandidateFigures(strategy, {"north": mean}, mean, worst, worst_change, 2 * cpu_seconds, cpu_seconds)


def chosen(*candidates):
    return choose(candidates, 0.01, 0.03)


def test_the_cheapest_of_those_within_the_tolerance_is_kept():
    choice = chosen(candidate("dear", 0.92, 90), candidate("cheap", 0.912, 2), candidate("worse", 0.90, 1))
    assert choice.chosen == "cheap"
    assert choice.reason == (
        "cheap is the cheapest of the 2 that are not worse: its validation mean, 0.912, is within 0.01 of the best, "
        "0.920 of dear."
    )


def test_a_dear_candidate_is_kept_when_every_other_is_worse():
    choice = chosen(candidate("cheap", 0.90, 1), candidate("dear", 0.92, 90))
    assert choice.chosen == "dear"
    assert choice.reason == "dear has the best validation mean, 0.920; no other is within 0.01."


@pytest.mark.parametrize(("second_costs", "kept"), [(8.1, "first"), (7.9, "second")])
def test_costs_within_a_quarter_are_a_tie_that_the_plans_order_decides(second_costs, kept):
    assert chosen(candidate("first", 0.9, 10), candidate("second", 0.9, second_costs)).chosen == kept


def test_who_loses_too_much_of_the_past_is_set_aside_and_named():
    choice = chosen(candidate("forgets", 0.95, 1, -0.031), candidate("keeps", 0.90, 50, -0.029))
    assert choice.chosen == "keeps"
    assert choice.set_aside == ("forgets",)
    assert choice.reason.endswith("Set aside for losing more than 0.03 at a past site: forgets (-0.031 at north).")


def test_when_all_lose_too_much_none_is_set_aside():
    choice = chosen(candidate("forgets", 0.95, 50, -0.2), candidate("forgets_too", 0.90, 1, -0.1))
    assert (choice.chosen, choice.set_aside) == ("forgets", ())
    assert choice.reason.endswith("Every candidate loses more than 0.03 at a past site, so none was set aside for it.")


def test_without_a_past_nobody_is_set_aside():
    assert chosen(candidate("only", 0.5, 1, None)).chosen == "only"


def test_the_record_holds_every_candidate_and_without_costs_it_is_the_same_each_time():
    first = chosen(candidate("a", 0.92, 90), candidate("b", 0.92, 2))
    again = chosen(candidate("a", 0.92, 80), candidate("b", 0.92, 3))
    record = json.loads(json.dumps(first.as_record()))
    assert [row["strategy"] for row in record["candidates"]] == ["a", "b"]
    assert [row["cpu_seconds"] for row in record["candidates"]] == [90, 2]
    assert first.as_record() != again.as_record()
    assert first.without_costs() == again.without_costs()
    assert first.without_costs()["candidates"][0]["mean"] == 0.92
