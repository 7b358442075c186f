"""An update killed by the system at its worst moments, and the same update run again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOMENTS = ("training", "before_registration", "before_promotion")
KILLER = Path(__file__).with_name("kill_an_update.py")
ROOT = Path(__file__).parents[2]
SHIFTED = tuple(f"t{number}" for number in range(40))


@pytest.fixture(scope="module")
def killed(released_folder, stream, tmp_path_factory, command_environment):
    """Moment to the folder of a workspace whose update was killed there; one process kills all of them."""
    from types import SimpleNamespace

    folders = {moment: tmp_path_factory.mktemp(moment) / "desk" for moment in MOMENTS}
    arguments = []
    for moment, folder in folders.items():
        shutil.copytree(released_folder, folder)
        rows = stream.write_cells(folder, "second", SHIFTED, 2)
        manifest = stream.write_manifest(folder / "second.csv", rows)
        from flows.ingest import take_in
        from flows.requests import Incoming

        assert take_in(str(folder / "workspace"), Incoming(str(manifest)), "second", "cells").new == 80
        arguments += [moment, str(folder / "workspace")]
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
    return SimpleNamespace(folders=folders)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_update_changes_nothing_in_service_and_running_it_again_finishes_it(killed, released, moment):
    desk = released.__class__(killed.folders[moment], released.stream)
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 1
        assert registry.updates.list("cells")[0].outcome == "running"
    assert desk.learn("second") == "version 2 accepted"
    assert desk.learn("second") == "nothing new"
    with desk.registry() as registry:
        assert [(v.number, v.state.value) for v in registry.adapters.list("cells")] == [(1, "accepted"), (2, "accepted")]
        assert [move.to_version for move in registry.adapters.history("cells", "champion")] == [1, 2]
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted", "interrupted", "accepted"]
        assert len(registry.samples.list("second")) == 80
        assert len({sample.digest for sample in registry.samples.list("second")}) == 80
        assert registry.ledger.verify() > 0
