"""Images let go under kill -9: nothing needed is without both image and activations, and running again finishes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from continual.domain.samples import Split

MOMENTS = ("in_keeping", "before_deletion", "in_deletion", "before_the_entry", "before_forgetting")
KILLER = Path(__file__).with_name("kill_letting_go.py")
ROOT = Path(__file__).parents[2]
SHIFTED = tuple(f"t{number}" for number in range(40))


@pytest.fixture(scope="module")
def killed(stream, libraries, tmp_path_factory, command_environment):
    """Moment to a desk where letting go was killed; the update before it is learnt once for all of them."""
    first = stream.Desk(tmp_path_factory.mktemp("released") / "desk")
    first.folder.mkdir()
    first.take_in(first.cells("first"), "first")
    assert first.release(keep_images=False) == "accepted"
    first.take_in(first.cells("second", SHIFTED, seed=2), "second", "cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.update.let_go", lambda _context: 0)
        assert first.learn("second") == "version 2 accepted"
    desks = {}
    for moment in MOMENTS:
        folder = tmp_path_factory.mktemp(moment) / "desk"
        shutil.copytree(first.folder, folder)
        desks[moment] = stream.Desk(folder)
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


def kept(desk, sample) -> set[str]:
    folder = Path(desk.workspace) / "kept_activations"
    return {path.name.split(".")[1] for path in folder.glob(f"*/*/{sample.digest}.*.npy")}


def wanted(registry, sample) -> set[str]:
    """What has to be kept of a sample of a learnt site."""
    remembered = {digest for _, digest in registry.adapters.current("cells").record["memory"]}
    needed = sample.split is not Split.TRAIN or sample.digest in remembered
    return {"features", "v0"} if needed else {"features"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_images_are_let_go_loses_nothing_and_the_next_run_finishes(killed, moment):
    desk = killed[moment]
    with desk.registry() as registry:
        assert registry.adapters.current("cells").number == 2
        stored = {s.digest for s in registry.samples.list() if registry.artifacts.has(s.artifact)}
        assert (len(stored) < 80) == (moment in ("in_deletion", "before_the_entry", "before_forgetting"))
        for sample in registry.samples.list():
            assert sample.digest in stored or wanted(registry, sample) <= kept(desk, sample)
        assert len(registry.images.list()) == (2 if moment == "before_forgetting" else 1)
    assert desk.learn("second") == "nothing new"
    with desk.registry() as registry:
        samples = registry.samples.list()
        assert not any(registry.artifacts.has(sample.artifact) for sample in samples)
        assert all(kept(desk, sample) == wanted(registry, sample) for sample in samples)
        assert list((Path(desk.workspace) / "activations").glob("*/*/*.npy")) == []
        assert [(e.site, e.samples, e.images) for e in registry.images.list()] == [
            ("first", 80, 80),
            ("second", 80, 80),
        ]
        assert registry.ledger.verify() > 0
