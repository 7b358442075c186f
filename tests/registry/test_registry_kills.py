"""Kill -9 at the worst moments: what was acknowledged is kept, nothing is half there, running again finishes."""

import time
from pathlib import Path

import pytest

from continual.domain.adapters import CHAMPION, AdapterState
from continual.domain.errors import NotFoundError
from registry import open_registry
from registry.artifacts import INCOMING


def _kill_when_reached(child):
    for line in child.stdout:
        if "REACHED" in line:  # several writers may announce at once, their words interleaved
            break
    else:
        pytest.fail("the child ended before it reached the place to be killed at")
    child.kill()
    child.wait()


def _finish(child):
    said = child.communicate()
    assert child.returncode == 0
    return said.split()[-1]


def _assert_whole(registry):
    samples = registry.samples.list()
    assert sum(batch.new for batch in registry.samples.batches()) == len(samples)
    assert registry.ledger.verify() == len(registry.samples.batches())
    for sample in samples:
        assert len(registry.samples.read(sample)) == 3000
    return len(samples)


@pytest.mark.parametrize("place", ["before_rename", "before_commit"])
def test_intake_killed_at_its_worst_moment_leaves_nothing_and_completes_when_repeated(
    database, artifacts, start_child, make, place
):
    _kill_when_reached(start_child("record", database, artifacts, 25, place))
    with open_registry(database, artifacts) as registry:
        assert _assert_whole(registry) == 0
        assert registry.samples.sites() == ()
        if place == "before_rename":
            assert list((Path(artifacts) / INCOMING).iterdir()) != []
        summary = registry.samples.record("north", make.images(25), [], "again")
        assert (summary.batch, summary.new, summary.duplicates) == (1, 25, 0)
        assert _assert_whole(registry) == 25


@pytest.mark.parametrize("delay_s", [0.0, 0.15, 0.4])
def test_intake_killed_at_any_moment_is_all_or_nothing(database, artifacts, start_child, make, delay_s):
    child = start_child("record", database, artifacts, 300)
    assert child.stdout.readline().strip() == "START"
    time.sleep(delay_s)
    child.kill()
    child.wait()
    acknowledged = "new=300" in child.stdout.read()
    with open_registry(database, artifacts) as registry:
        stored = _assert_whole(registry)
        assert stored in ({300} if acknowledged else {0, 300})
        registry.samples.record("north", make.images(300), [], "again")
        assert _assert_whole(registry) == 300


@pytest.mark.parametrize("place", ["before_rename", "before_commit"])
def test_registration_killed_at_its_worst_moment_leaves_no_version(database, artifacts, start_child, make, place):
    _kill_when_reached(start_child("register", database, artifacts, 0, place))
    with open_registry(database, artifacts) as registry:
        assert registry.adapters.names() == ()
        version = registry.adapters.register(make.draft(), make.files(), "again")
        assert version.number == 1
        assert registry.adapters.files(version) == make.files()
        assert registry.ledger.verify() == 1


def test_promotion_killed_before_its_commit_is_neither_accepted_nor_current(database, artifacts, start_child, make):
    with open_registry(database, artifacts) as registry:
        registry.adapters.register(make.draft(), make.files(), "flow")
    _kill_when_reached(start_child("promote", database, artifacts, 0, "before_commit"))
    with open_registry(database, artifacts) as registry:
        assert registry.adapters.get("lesion", 1).state is AdapterState.CANDIDATE
        with pytest.raises(NotFoundError):
            registry.adapters.current("lesion")
    assert _finish(start_child("promote", database, artifacts)) == "accepted"
    with open_registry(database, artifacts) as registry:
        assert registry.adapters.current("lesion", CHAMPION).number == 1
        assert registry.ledger.verify() == 3
