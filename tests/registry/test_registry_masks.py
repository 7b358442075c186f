"""Masks of samples on both databases: stored once, late, corrected, evened out over the splits, erased."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from continual.domain.adapters import Task
from continual.domain.digests import sha256_bytes
from continual.domain.errors import ArtifactError, NotFoundError
from continual.domain.samples import SPLIT_SHARES, IntakeSummary, Split
from registry import ErasureOrder

EMPTY = b"a mask of nothing but background"
"""The registry never looks inside a mask, so any bytes stand for one."""


def masked(images, mask=None):
    """The images without labels and with a mask each, one of its own unless given."""
    return [
        dataclasses.replace(image, label=None, mask_data=mask or f"mask of {image.subject}".encode())
        for image in images
    ]


def erase(registry, subject, site="north"):
    return registry.erasures.erase(ErasureOrder(site, subject, "officer", "the patient withdrew consent"))


def files(artifacts):
    return {path.name for path in Path(artifacts).rglob("*") if path.is_file()}


def test_a_mask_is_stored_beside_its_image_and_read_back(registry, make):
    images = masked(make.images(3))
    assert registry.samples.record("north", images, [], "ingest") == IntakeSummary("north", 1, 3, 0, 0)
    for image, sample in zip(images, registry.samples.get([image.digest for image in images]), strict=True):
        assert sample.mask == sha256_bytes(image.mask_data)
        assert registry.samples.read_mask(sample) == image.mask_data
        assert registry.samples.read(sample) == image.data
        assert registry.samples.sizes([sample]) == {sample.digest: len(image.data) + len(image.mask_data)}


def test_samples_are_listed_by_the_task_they_are_labelled_for(registry, make):
    both = dataclasses.replace(make.images(1)[0], mask_data=b"mask")
    label_only, bare = make.images(1, start=1)[0], make.images(1, start=2, labels=None)[0]
    (mask_only,) = masked(make.images(1, start=3))
    registry.samples.record("north", [both, label_only, bare, mask_only], [], "ingest")
    listed = {task: {sample.digest for sample in registry.samples.list(labelled=task)} for task in (None, *Task)}
    assert listed == {
        None: {both.digest, label_only.digest, bare.digest, mask_only.digest},
        Task.CLASSIFICATION: {both.digest, label_only.digest},
        Task.SEGMENTATION: {both.digest, mask_only.digest},
    }
    for task in Task:
        assert all(sample.labelled_for(task) for sample in registry.samples.list(labelled=task))


def test_a_mask_may_come_later_and_the_same_intake_again_stores_nothing(registry, make, artifacts):
    registry.samples.record("north", make.images(3, labels=None), [], "ingest")
    images = masked(make.images(3))
    assert registry.samples.record("north", images, [], "masks") == IntakeSummary("north", 2, 0, 3, 0, relabelled=3)
    entries, held = registry.ledger.verify(), files(artifacts)
    assert registry.samples.record("north", images, [], "masks") == IntakeSummary("north", None, 0, 3, 0)
    assert (registry.ledger.verify(), files(artifacts)) == (entries, held)
    assert registry.samples.batches()[1].relabelled == 3


def test_an_image_without_its_mask_never_removes_the_stored_one(registry, make):
    registry.samples.record("north", masked(make.images(1)), [], "ingest")
    assert registry.samples.record("north", make.images(1, labels=None), [], "ingest").batch is None
    assert registry.samples.list()[0].mask is not None


def test_a_label_and_a_mask_that_come_together_count_as_one_relabelled_sample(registry, make):
    registry.samples.record("north", make.images(2, labels=None), [], "ingest")
    images = [dataclasses.replace(image, mask_data=b"mask") for image in make.images(2)]
    assert registry.samples.record("north", images, [], "labels").relabelled == 2
    assert all(sample.label and sample.mask for sample in registry.samples.list())


def test_a_later_intake_corrects_a_mask_and_may_correct_it_back(registry, make):
    first, better = masked(make.images(1)), masked(make.images(1), b"a better mask")
    registry.samples.record("north", first, [], "ingest")
    for images in (better, first, better):
        assert registry.samples.record("north", images, [], "corrections").relabelled == 1
        (sample,) = registry.samples.list()
        assert registry.samples.read_mask(sample) == images[0].mask_data


def test_two_masks_for_one_picture_in_one_intake_are_for_the_sender_to_choose(registry, make):
    (one,), (other,) = masked(make.images(1)), masked(make.images(1), b"another mask")
    for batch in (1, None):
        summary = registry.samples.record("north", [one, one, other], [], "ingest")
        assert (summary.batch, summary.quarantined, summary.relabelled) == (batch, 1, 0)
    (entry,) = registry.samples.quarantine()
    assert (entry.position, entry.file_digest) == (3, one.digest)
    assert "keep the right one" in entry.reason
    assert registry.samples.read_mask(registry.samples.list()[0]) == one.mask_data


def test_a_row_without_a_mask_and_one_with_it_are_one_masked_sample(registry, make):
    bare, (with_mask,) = make.images(1, labels=None)[0], masked(make.images(1))
    summary = registry.samples.record("north", [bare, with_mask], [], "ingest")
    assert (summary.new, summary.duplicates, summary.quarantined, summary.relabelled) == (1, 1, 0, 0)
    assert registry.samples.list()[0].mask is not None


def test_an_empty_mask_holds_its_image_back(registry, make):
    image = dataclasses.replace(make.images(1)[0], mask_data=b"")
    assert registry.samples.record("north", [image], [], "ingest").quarantined == 1
    assert "the mask is empty" in registry.samples.quarantine()[0].reason


def test_a_mask_that_is_missing_or_damaged_is_refused_when_it_is_read(registry, make):
    registry.samples.record("north", [*masked(make.images(1)), *make.images(1, start=1)], [], "ingest")
    (sample,) = registry.samples.list(labelled=Task.SEGMENTATION)
    registry.artifacts.path(sample.mask).write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        registry.samples.read_mask(sample)
    with pytest.raises(NotFoundError, match="has no mask"):
        registry.samples.read_mask(registry.samples.list(labelled=Task.CLASSIFICATION)[0])


def test_what_the_ledger_says_of_an_intake_changes_with_its_masks(registry, make):
    digests = []
    for site, mask in (("north", b"one"), ("south", b"two"), ("west", b"one")):
        images = [dataclasses.replace(image, site=site) for image in masked(make.images(2), mask)]
        registry.samples.record(site, images, [], "ingest")
        digests.append(registry.ledger.list()[-1].payload["masks_digest"])
    assert digests[0] == digests[2] != digests[1]


def test_subjects_with_masks_are_spread_over_the_splits_among_themselves(registry, make):
    # Of 100 subjects 20 have masks; in one heap with the others they would fall as chance has it.
    images = [*masked(make.images(20)), *make.images(80, start=20, labels=None)]
    registry.samples.record("north", images, [], "ingest")
    registry.samples.record("north", masked(make.images(20, start=100)), [], "ingest")
    placed = Counter(sample.split for sample in registry.samples.list(labelled=Task.SEGMENTATION))
    assert placed == {split: 40 * share for split, share in SPLIT_SHARES.items()}
    assert set(Counter(sample.split for sample in registry.samples.list(batch=2))) == set(Split)


def test_erasing_a_subject_takes_its_masks_and_leaves_one_that_others_share(registry, make, artifacts):
    # All-background masks are one file: those of two subjects, and of one at another site.
    images = [*masked(make.images(1)), *masked(make.images(2, start=1), EMPTY)]
    registry.samples.record("north", images, [], "ingest")
    far = [dataclasses.replace(image, site="south") for image in masked(make.images(1, start=2), EMPTY)]
    registry.samples.record("south", far, [], "ingest")
    assert erase(registry, "subject-0").masks == 1
    assert erase(registry, "subject-1").masks == 0
    assert erase(registry, "subject-2").masks == 0
    (left,) = registry.samples.list()
    assert registry.samples.read_mask(left) == EMPTY
    assert erase(registry, "subject-2", "south").masks == 1
    assert files(artifacts) == set()
    assert [erasure.masks for erasure in registry.erasures.list()] == [1, 0, 0, 1]


def test_erasing_a_subject_takes_the_masks_that_were_replaced_too(registry, make, artifacts):
    registry.samples.record("north", masked(make.images(2), EMPTY), [], "ingest")
    registry.samples.record("north", masked(make.images(2)), [], "corrections")
    assert sha256_bytes(EMPTY) in files(artifacts)
    assert erase(registry, "subject-0").masks == 1
    # The other subject's replaced mask is evidence still.
    assert sha256_bytes(EMPTY) in files(artifacts)
    assert erase(registry, "subject-1").masks == 2
    assert files(artifacts) == set()


def test_a_mask_of_an_erased_subject_that_an_intake_counted_on_is_stored_again(registry, make, monkeypatch):
    """The erasure falls between the intake's look at the store and its rows."""
    registry.samples.record("north", masked(make.images(1), EMPTY), [], "ingest")
    store = type(registry.samples)._store

    def store_then_erase(samples, plan, already):
        addresses = store(samples, plan, already)
        monkeypatch.undo()
        assert erase(registry, "subject-0").masks == 1
        return addresses

    monkeypatch.setattr(type(registry.samples), "_store", store_then_erase)
    registry.samples.record("north", masked(make.images(1, start=1), EMPTY), [], "ingest")
    (sample,) = registry.samples.list()
    assert registry.samples.read_mask(sample) == EMPTY
