"""An update killed by the system at its worst moments, and the same update run again."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

STEPS = 40
AT_A_STEP = ("1", "23", str(STEPS))
KEPT_STEPS = {moment: int(moment) for moment in AT_A_STEP} | {
    "writing_a_state": 4,
    "before_registration": STEPS,
    "before_promotion": STEPS,
}
"""Moment before promotion to the step whose training state outlives a kill there."""
AFTER_PROMOTION = "after_promotion"
CHOOSING = "choosing"
SEVERAL = ("replay_ewc", "random_projection", "replay_lwf")
"""What the change plan allows where an automatic choice is killed; the harness stops it in the last one's training."""
KILLER = Path(__file__).with_name("kill_an_update.py")
ROOT = Path(__file__).parents[2]
SHIFTED = tuple(f"t{number}" for number in range(40))


def states(registry):
    return {version.number: version.state.value for version in registry.adapters.list("cells")}


def fresh_desk(stream, released_folder, folder):
    """A desk with a first version and a second site's samples that nobody has learnt."""
    shutil.copytree(released_folder, folder)
    desk = stream.Desk(folder)
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    return desk


def choosing_desk(stream, folder):
    """The same of an adapter whose change plan allows several strategies."""
    folder.mkdir()
    desk = stream.Desk(folder)
    desk.take_in(desk.cells("first"), "first")
    assert desk.release(strategies=SEVERAL) == "accepted"
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")
    return desk


def learnt_aloud(desk):
    """What came of the update, and every line that a person at the terminal sees."""
    from flows.progress import progress_bars

    with io.StringIO() as terminal:
        with progress_bars(Console(file=terminal, width=200)):
            outcome = desk.learn("second")
        return outcome, [line.strip() for line in terminal.getvalue().splitlines()]


def states_kept(desk):
    return list((Path(desk.workspace) / "training").glob("*"))


def version_files(desk):
    """Every file of the second version, byte for byte."""
    with desk.registry() as registry:
        return registry.adapters.files(registry.adapters.current("cells"))


@pytest.fixture(scope="module")
def undisturbed(stream, released_folder, tmp_path_factory):
    """Files of the second version as an update makes them that nobody kills."""
    desk = fresh_desk(stream, released_folder, tmp_path_factory.mktemp("undisturbed") / "desk")
    outcome, lines = learnt_aloud(desk)
    assert outcome == "version 2 accepted"
    assert not any("goes on" in line for line in lines)
    assert states_kept(desk) == []
    return version_files(desk)


@pytest.fixture(scope="module")
def killed(stream, released_folder, tmp_path_factory, command_environment):
    """Moment to a desk whose update was killed there; one process loads the libraries for all of them."""
    desks = {}
    for moment in (*KEPT_STEPS, AFTER_PROMOTION):
        desks[moment] = fresh_desk(stream, released_folder, tmp_path_factory.mktemp(moment) / "desk")
    desks[CHOOSING] = choosing_desk(stream, tmp_path_factory.mktemp(CHOOSING) / "desk")
    arguments = [argument for moment, desk in desks.items() for argument in (moment, desk.workspace)]
    ended = subprocess.run(
        [sys.executable, KILLER, *arguments],
        cwd=ROOT,
        env=command_environment(PYTHONPATH=str(ROOT), CONTINUAL_CHECKPOINT_SECONDS="0"),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return desks


@pytest.mark.parametrize("moment", KEPT_STEPS)
def test_a_killed_update_changes_nothing_in_service_and_running_it_again_ends_with_the_same_version(
    killed, undisturbed, moment
):
    desk, step = killed[moment], KEPT_STEPS[moment]
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 1
        assert registry.updates.list("cells")[0].outcome == "running"
    outcome, lines = learnt_aloud(desk)
    assert outcome == "version 2 accepted"
    assert f"second: training goes on from step {step} of {STEPS}" in lines
    assert version_files(desk) == undisturbed
    assert states_kept(desk) == []
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
        assert [row["strategy"] for row in candidates] == list(SEVERAL)
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted", "interrupted", "accepted"]
        assert registry.ledger.verify() > 0
