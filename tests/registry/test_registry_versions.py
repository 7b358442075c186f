"""Adapter versions on both databases: numbering, files, the gate's one decision."""

import dataclasses
import math

import pytest

from continual.domain.adapters import AdapterState, GateDecision, GateFinding
from continual.domain.digests import sha256_bytes, sha256_json
from continual.domain.errors import ArtifactError, ConflictError, NotFoundError, RegistryError

FINDING = GateFinding("north", "past", 0.81, 0.5, -0.31, -0.4, -0.05, False, 12, "north lost 0.310 over 12 subjects")
REJECTED = GateDecision(accepted=False, findings=(FINDING,), margin=-0.05, confidence=0.9)


def test_registered_version_comes_back_as_it_was_drafted(registry, make):
    version = registry.adapters.register(make.draft(), make.files(), "flow")
    assert registry.adapters.get("lesion", 1) == version
    draft = make.draft()
    for name in ("adapter", "parent", "strategy", "backbone_digest", "trained_on", "classes", "metric", "metrics"):
        assert getattr(version, name) == getattr(draft, name)
    assert version.record == draft.record
    assert version.state is AdapterState.CANDIDATE
    assert version.gate is None
    assert version.files == {name: (sha256_bytes(data), len(data)) for name, data in make.files().items()}
    assert version.digest == sha256_json(sorted((name, sha256_bytes(data)) for name, data in make.files().items()))
    assert registry.adapters.files(version) == make.files()
    assert registry.adapters.file("lesion", 1, "README.md") == b"# card"


def test_versions_are_numbered_per_adapter_from_one(registry, make):
    for number in (1, 2, 3):
        assert registry.adapters.register(make.draft(), make.files(f"weights {number}"), "flow").number == number
    assert registry.adapters.register(make.draft(adapter="fracture"), make.files(), "flow").number == 1
    assert registry.adapters.names() == ("fracture", "lesion")
    assert [version.number for version in registry.adapters.list("lesion")] == [1, 2, 3]
    assert registry.adapters.list("unknown") == []


def test_same_folder_under_the_same_parent_is_the_same_version(registry, make):
    first = registry.adapters.register(make.draft(), make.files(), "flow")
    assert registry.adapters.register(make.draft(), make.files(), "flow") == first
    child = registry.adapters.register(make.draft(parent=1), make.files(), "flow")
    assert (child.number, child.parent) == (2, 1)
    assert registry.adapters.register(make.draft(parent=1), make.files(), "flow") == child
    assert registry.ledger.verify() == 2


def test_unknown_parent_is_not_found_and_nothing_is_registered(registry, make):
    with pytest.raises(NotFoundError, match="no version 9"):
        registry.adapters.register(make.draft(parent=9), make.files(), "flow")
    assert registry.adapters.list("lesion") == []


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.bin", "model.pth", "model.ckpt", "model.py", "model"])
def test_file_that_may_run_code_when_loaded_is_refused(registry, make, name):
    with pytest.raises(ArtifactError, match="safetensors"):
        registry.adapters.register(make.draft(), {**make.files(), name: b"x"}, "flow")
    assert registry.adapters.names() == ()


@pytest.mark.parametrize("name", ["../adapter.json", "a/b.json", ".json", "", "a b.json", "é.json"])
def test_file_name_that_is_not_plain_is_refused(registry, make, name):
    with pytest.raises(RegistryError, match="plain name"):
        registry.adapters.register(make.draft(), {name: b"x"}, "flow")


def test_version_without_files_is_refused(registry, make):
    with pytest.raises(ArtifactError, match="0 files"):
        registry.adapters.register(make.draft(), {}, "flow")


@pytest.mark.parametrize(
    "change", [{"adapter": "a/b"}, {"strategy": ""}, {"metrics": {"north": math.nan}}, {"record": {"when": object()}}]
)
def test_draft_that_cannot_be_kept_is_a_registry_error_and_leaves_nothing(registry, make, change):
    with pytest.raises(RegistryError):
        registry.adapters.register(dataclasses.replace(make.draft(), **change), make.files(), "flow")
    assert registry.adapters.names() == ()
    assert registry.ledger.verify() == 0


def test_decision_is_kept_with_its_findings_and_may_be_repeated(registry, make):
    registry.adapters.register(make.draft(), make.files(), "flow")
    for _ in range(2):
        version = registry.adapters.decide("lesion", 1, REJECTED, "gate")
        assert (version.state, version.gate) == (AdapterState.REJECTED, REJECTED)
    assert registry.adapters.get("lesion", 1) == version
    assert [entry.event for entry in registry.ledger.list()] == ["version_registered", "gate_decision"]


def test_opposite_decision_is_a_conflict(registry, make):
    registry.adapters.register(make.draft(), make.files(), "flow")
    registry.adapters.decide("lesion", 1, REJECTED, "gate")
    with pytest.raises(ConflictError, match="rejected already"):
        registry.adapters.decide("lesion", 1, make.accepted, "gate")
    assert registry.adapters.get("lesion", 1).gate == REJECTED


def test_decision_that_accepts_against_its_own_findings_is_refused(registry, make):
    registry.adapters.register(make.draft(), make.files(), "flow")
    with pytest.raises(ConflictError, match="did not pass"):
        registry.adapters.decide("lesion", 1, dataclasses.replace(REJECTED, accepted=True), "gate")


def test_unknown_version_or_file_is_not_found(registry, make):
    registry.adapters.register(make.draft(), make.files(), "flow")
    with pytest.raises(NotFoundError, match="no version 2"):
        registry.adapters.get("lesion", 2)
    with pytest.raises(NotFoundError, match=r"no file 'optimizer.json'; it has .*README.md"):
        registry.adapters.file("lesion", 1, "optimizer.json")


def test_damaged_file_is_refused_not_served(registry, make):
    version = registry.adapters.register(make.draft(), make.files(), "flow")
    registry.artifacts.path(version.files["adapter_model.safetensors"][0]).write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        registry.adapters.files(version)
