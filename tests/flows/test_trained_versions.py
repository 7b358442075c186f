"""Which versions were trained on a subject, from records alone: experiences, replay, joint training, descent."""

from dataclasses import replace

import pytest

from continual.domain.adapters import VersionDraft
from continual.domain.samples import CleanImage, Sample, Split
from flows.updates.trained_versions import TrainedVersion, trained_versions
from registry import ErasureOrder, open_registry


@pytest.fixture
def registry(tmp_path):
    """Two batches of north (1 and 3) and one of south (2)."""
    with open_registry(f"sqlite:///{tmp_path}/registry.db", str(tmp_path / "artifacts")) as opened:
        for number, site in enumerate(("north", "south", "north"), start=1):
            image = CleanImage(f"d{number}", site, f"s{number}", "x", b"png", 8, 8, split=Split.TRAIN)
            opened.samples.record(site, [image], [], "ingest")
        yield opened


def _sample(number: int, site: str = "north", split: Split = Split.TRAIN, label: str | None = "x") -> Sample:
    return Sample(f"d{number}", site, f"s{number}", label, split, "a", batch=number)


def _register(registry, parent, site, learnt, **record):
    """A version that learnt the site; its memory is empty unless told."""
    sites = (*(registry.adapters.get("cells", parent).trained_on if parent else ()), site)
    body = {"experience": {"site": site}, "learnt_batches": learnt, "memory": [], "replayed": 0, "past": 0} | record
    draft = VersionDraft("cells", parent, "replay", "0" * 64, sites, ("x", "y"), "balanced_accuracy", {site: 0.9}, body)
    folder = {"record.json": f"{parent} {site} {learnt} {record}".encode()}
    return registry.adapters.register(draft, folder, "test").number


def _found(registry, *samples, earlier=()):
    return {one.version: one.how for one in trained_versions(registry, samples, earlier)}


def test_the_version_whose_experience_held_the_subject_and_its_descendants_are_named(registry):
    _register(registry, None, "north", {"north": 1})
    _register(registry, 1, "south", {"north": 1, "south": 2})
    _register(registry, 2, "north", {"north": 3, "south": 2})
    assert _found(registry, _sample(1)) == {1: "learnt", 2: "inherited", 3: "inherited"}
    assert _found(registry, _sample(2, "south")) == {2: "learnt", 3: "inherited"}
    assert _found(registry, _sample(3)) == {3: "learnt"}


def test_a_rejected_branch_that_learnt_the_subject_is_named_beside_the_lineage(registry):
    _register(registry, None, "north", {"north": 1})
    _register(registry, 1, "south", {"north": 1, "south": 2})
    _register(registry, 1, "north", {"north": 3})
    assert _found(registry, _sample(2, "south")) == {2: "learnt"}


def test_a_version_that_replayed_the_subject_says_so_and_one_that_did_not_replay_inherits(registry):
    _register(registry, None, "north", {"north": 1}, memory=[["north", "d1"]])
    _register(registry, 1, "south", {"north": 1, "south": 2}, replayed=1)
    _register(registry, 1, "south", {"north": 1, "south": 2}, strategy="naive")
    assert _found(registry, _sample(1)) == {1: "learnt", 2: "replayed", 3: "inherited"}


def test_joint_training_learns_what_a_past_site_brought_since(registry):
    _register(registry, None, "north", {"north": 1})
    _register(registry, 1, "south", {"north": 1, "south": 2}, past=2)
    assert _found(registry, _sample(3)) == {2: "learnt"}


def test_a_closed_form_learnt_every_training_sample_of_its_sites_and_one_fitted_anew_inherits_nothing(registry):
    _register(registry, None, "north", {"north": 1})
    _register(registry, 1, "south", {"north": 1, "south": 2}, strategy="random_projection", start=None, past=1)
    _register(registry, 2, "north", {"north": 3, "south": 2}, strategy="random_projection", start=2)
    assert _found(registry, _sample(1)) == {1: "learnt", 2: "learnt", 3: "inherited"}
    assert _found(registry, _sample(2, "south")) == {2: "learnt", 3: "inherited"}
    findings = {"versions": [{"adapter": "cells", "version": 1, "how": "learnt"}], "running_updates": []}
    registry.erasures.erase(ErasureOrder("north", "s1", "officer", "withdrawn", findings))
    _register(registry, 1, "south", {"north": 1, "south": 2}, strategy="nearest_mean", start=None, past=1)
    _register(registry, 4, "north", {"north": 3, "south": 2}, strategy="replay", start=1, past=2)
    found = trained_versions(registry, [], registry.erasures.list("north", "s1"))
    # Version 4 was fitted on what was stored after the erasure; version 5 goes on from the weights of version 1.
    assert {one.version: one.how for one in found} == {1: "learnt", 5: "inherited"}


def test_a_held_out_or_unlabelled_subject_trained_nothing(registry):
    _register(registry, None, "north", {"north": 1})
    assert _found(registry, _sample(1, split=Split.TEST), _sample(1, label=None)) == {}


def test_a_record_of_the_first_release_is_read_with_the_worst_in_mind(registry):
    _register(registry, None, "north", {"north": 1}, memory=[["north", "d1"]])
    number = _register(registry, 1, "south", {"north": 1, "south": 2})
    older = {k: v for k, v in registry.adapters.get("cells", number).record.items() if k not in {"replayed", "past"}}
    draft = VersionDraft("old", None, "replay", "0" * 64, ("north",), ("x", "y"), "balanced_accuracy", {}, older)
    first = replace(draft, record=older | {"experience": {"site": "north"}, "memory": [["north", "d1"]]})
    registry.adapters.register(first, {"record.json": b"1"}, "test")
    second = replace(draft, parent=1, record=older, trained_on=("north", "south"))
    registry.adapters.register(second, {"record.json": b"2"}, "test")
    found = trained_versions(registry, [_sample(1)], ())
    assert [(one.version, one.how) for one in found if one.adapter == "old"] == [(1, "learnt"), (2, "replayed")]


def test_after_an_erasure_its_findings_stay_and_what_came_since_is_added(registry):
    _register(registry, None, "north", {"north": 1})
    running = registry.updates.begin("cells", "south", 1, {}, "test")
    _register(registry, None, "south", {"south": 2})
    findings = {"versions": [{"adapter": "cells", "version": 1, "how": "learnt"}], "running_updates": [running.id]}
    registry.erasures.erase(ErasureOrder("north", "s1", "officer", "withdrawn", findings))
    registry.updates.finish(running.id, 2, "accepted", {})
    _register(registry, 1, "north", {"north": 3})
    earlier = registry.erasures.list("north", "s1")
    assert trained_versions(registry, [], earlier) == (
        TrainedVersion("cells", 1, "learnt"),
        TrainedVersion("cells", 2, "possibly"),
        TrainedVersion("cells", 3, "inherited"),
    )
