"""An update killed by the system at its worst moments, and the same update run again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE_PROMOTION = ("training", "before_registration", "before_promotion")
AFTER_PROMOTION = "after_promotion"
CHOOSING = "choosing"
KILLER = Path(__file__).with_name("kill_an_update.py")
ROOT = Path(__file__).parents[2]
SHIFTED = tuple(f"t{number}" for number in range(40))


def states(registry):
    return {version.number: version.state.value for version in registry.adapters.list("cells")}


@pytest.fixture(scope="module")
def killed(stream, released_folder, tmp_path_factory, command_environment):
    """Moment to a desk whose update was killed there; one process loads the libraries for all of them."""
    desks = {}
    for moment in (*BEFORE_PROMOTION, AFTER_PROMOTION, CHOOSING):
        folder = tmp_path_factory.mktemp(moment) / "desk"
        shutil.copytree(released_folder, folder)
        desks[moment] = stream.Desk(folder)
        desks[moment].take_in(desks[moment].cells("second", SHIFTED, seed=2), "second", "cells")
    arguments = [argument for moment, desk in desks.items() for argument in (moment, desk.workspace)]
    ended = subprocess.run(
        [sys.executable, KILLER, *arguments],
        cwd=ROOT,
        env=command_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return desks


@pytest.mark.parametrize("moment", BEFORE_PROMOTION)
def test_a_killed_update_changes_nothing_in_service_and_running_it_again_finishes_it(killed, moment):
    desk = killed[moment]
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 1
        assert registry.updates.list("cells")[0].outcome == "running"
    assert desk.learn("second") == "version 2 accepted"
    assert desk.learn("second") == "nothing new"
    with desk.registry() as registry:
        assert states(registry) == {1: "accepted", 2: "accepted"}
        assert [move.to_version for move in registry.adapters.history("cells", "champion")] == [1, 2]
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted", "interrupted", "accepted"]
        assert len(registry.samples.list("second")) == 80
        assert registry.ledger.verify() > 0


def test_an_update_killed_after_its_promotion_is_in_service_and_is_not_run_again(killed):
    desk = killed[AFTER_PROMOTION]
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 2
    assert desk.learn("second") == "nothing new"
    with desk.registry() as registry:
        assert states(registry) == {1: "accepted", 2: "accepted"}
        assert registry.ledger.verify() > 0


def test_an_automatic_choice_killed_between_its_candidates_leaves_none_of_them_and_runs_again(killed):
    desk = killed[CHOOSING]
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 1
        assert states(registry) == {1: "accepted"}
        assert registry.updates.list("cells")[0].outcome == "running"
    assert desk.learn("second", strategy="auto") == "version 2 accepted"
    assert desk.learn("second", strategy="auto") == "nothing new"
    with desk.registry() as registry:
        assert states(registry) == {1: "accepted", 2: "accepted"}
        candidates = registry.adapters.get("cells", 2).record["choice"]["candidates"]
        assert {row["strategy"] for row in candidates} == {"replay_ewc", "random_projection", "replay_lwf"}
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted", "interrupted", "accepted"]
        assert registry.ledger.verify() > 0
