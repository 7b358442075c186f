"""Images let go on both databases: what goes, what another sample keeps, what the ledger says, and kills half way."""

import dataclasses
from pathlib import Path

import pytest

from continual.domain.errors import ArtifactError

MASK = b"a mask"


def _files(artifacts):
    return {path.name for path in Path(artifacts).rglob("*") if path.is_file()}


def _at(images, site):
    return [dataclasses.replace(image, site=site) for image in images]


@pytest.fixture
def filled(registry, make):
    """Six pictures at north, two others at south."""
    registry.samples.record("north", make.images(6), [], "ingest")
    registry.samples.record("south", make.images(2, site="south", start=6), [], "ingest")
    return registry


def _let_go(registry, site=None):
    return registry.images.let_go("lesion", registry.samples.list(site), "engineer")


def test_images_go_and_rows_splits_and_digests_stay(filled, artifacts):
    before = filled.samples.list()
    (north, south) = _let_go(filled)
    assert [(e.site, e.batches, e.samples, e.images, e.masks) for e in (north, south)] == [
        ("north", (1,), 6, 6, 0),
        ("south", (2,), 2, 2, 0),
    ]
    assert _files(artifacts) == set()
    assert filled.samples.list() == before
    with pytest.raises(ArtifactError, match="missing"):
        filled.samples.read(before[0])
    assert filled.samples.record("north", [], [], "again").new == 0


def test_the_ledger_counts_and_names_no_image(filled):
    before = filled.ledger.verify()
    (entry, _) = _let_go(filled)
    first = filled.ledger.list(after=before)[0]
    assert (first.event, first.actor, first.position) == ("images_let_go", "engineer", entry.position)
    counts = {"samples": 6, "images": 6, "masks": 0}
    assert first.payload == {"adapter": "lesion", "site": "north", "batches": [1], **counts}
    assert filled.ledger.verify() == before + 2
    assert filled.images.list()[0] == entry


def test_letting_go_again_says_and_does_nothing(filled):
    assert len(_let_go(filled)) == 2
    position = filled.ledger.verify()
    assert _let_go(filled) == []
    assert filled.ledger.verify() == position


def test_a_picture_that_another_sites_sample_uses_stays_until_that_one_goes(registry, make, artifacts):
    images = make.images(2)
    registry.samples.record("north", images, [], "ingest")
    registry.samples.record("south", _at(images[1:], "south"), [], "ingest")
    shared = registry.samples.list("south")[0].artifact
    (north,) = _let_go(registry, "north")
    assert (north.samples, north.images) == (2, 1)
    assert _files(artifacts) == {shared}
    entries = _let_go(registry)
    assert [(entry.site, entry.images) for entry in entries] == [("north", 1), ("south", 1)]
    assert _files(artifacts) == set()
    assert _let_go(registry) == []


def test_masks_go_too_also_those_that_were_replaced_or_came_late(registry, make, artifacts):
    images = make.images(2)
    registry.samples.record("north", [dataclasses.replace(images[0], mask_data=MASK), images[1]], [], "ingest")
    registry.samples.record("north", [dataclasses.replace(images[0], mask_data=b"a better mask")], [], "corrections")
    (entry,) = _let_go(registry)
    assert (entry.images, entry.masks) == (2, 2)
    assert _files(artifacts) == set()
    registry.samples.record("north", [dataclasses.replace(images[1], mask_data=MASK)], [], "late")
    assert len(_files(artifacts)) == 1
    (late,) = _let_go(registry)
    assert (late.images, late.masks) == (0, 1)
    assert _files(artifacts) == set()


def test_a_call_killed_before_its_entry_is_counted_in_full_by_the_next(filled, artifacts, monkeypatch):
    from registry import images

    def die(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(images.ledger, "append", die)
    with pytest.raises(KeyboardInterrupt):
        _let_go(filled)
    monkeypatch.undo()
    assert filled.images.list() == []
    assert _files(artifacts) == set()
    assert [(entry.site, entry.images) for entry in _let_go(filled)] == [("north", 6), ("south", 2)]


def test_an_image_that_goes_while_an_intake_counted_on_it_is_stored_again(registry, make, monkeypatch):
    """The images go between the intake's look at the store and its rows."""
    images = make.images(1)
    registry.samples.record("north", images, [], "ingest")
    store = type(registry.samples)._store

    def store_then_let_go(samples, plan, already):
        addresses = store(samples, plan, already)
        monkeypatch.undo()
        assert _let_go(registry)[0].images == 1
        return addresses

    monkeypatch.setattr(type(registry.samples), "_store", store_then_let_go)
    registry.samples.record("south", _at(images, "south"), [], "ingest")
    (south,) = registry.samples.list("south")
    assert registry.samples.read(south) == images[0].data


def test_a_subject_whose_images_are_gone_can_be_erased(filled):
    from registry import ErasureOrder

    _let_go(filled)
    assert filled.erasures.erase(ErasureOrder("north", "subject-1", "officer", "withdrawn")).samples == 1
    assert len(filled.samples.list("north")) == 5
