"""Held batches on both databases: what they take out of sight, who puts it back, and what the ledger says."""

import dataclasses
from datetime import UTC, datetime

import pytest

from continual.domain.errors import NotFoundError
from continual.domain.predictions import Prediction
from registry import OfferedLabel

FAULT = "30% of 20 images fit site north only with black and white exchanged"


@pytest.fixture
def filled(registry, make):
    """Two intakes at north, of four pictures and of three."""
    registry.samples.record("north", make.images(4), [], "ingest")
    registry.samples.record("north", make.images(3, start=4), [], "ingest")
    return registry


def test_samples_of_a_held_batch_are_out_of_sight_until_it_is_released(filled):
    assert filled.holds.hold([2], FAULT, "monitor") == (2,)
    assert {sample.batch for sample in filled.samples.list("north")} == {1}
    assert len(filled.samples.list("north", with_held=True)) == 7
    hold = filled.holds.release(2, "the radiologist has looked at all three", "it")
    assert (hold.batch, hold.site, hold.samples, hold.reason) == (2, "north", 3, FAULT)
    assert hold.released_at >= hold.held_at
    assert len(filled.samples.list("north")) == 7


def test_a_released_batch_is_never_held_again(filled):
    filled.holds.hold([1], FAULT, "monitor")
    filled.holds.release(1, "sound", "it")
    assert filled.holds.hold([1, 2], FAULT, "monitor") == (2,)
    assert filled.holds.held("north") == {2}


def test_holding_and_releasing_again_write_nothing(filled):
    before = filled.ledger.verify()
    filled.holds.hold([1, 2], FAULT, "monitor")
    assert filled.holds.hold([2, 1], "another reason", "monitor") == ()
    filled.holds.release(1, "sound", "it")
    assert filled.holds.release(1, "again", "it").released_at is not None
    events = [(entry.event, entry.payload) for entry in filled.ledger.list(after=before)]
    assert events == [
        ("batches_held", {"batches": [1, 2], "reason": FAULT}),
        ("batch_released", {"batch": 1, "reason": "sound"}),
    ]


def test_unknown_batches_are_refused_and_nothing_is_held(filled):
    with pytest.raises(NotFoundError, match="no batch 9"):
        filled.holds.hold([1, 9], FAULT, "monitor")
    with pytest.raises(NotFoundError, match="batch 1 was never held"):
        filled.holds.release(1, "sound", "it")
    assert filled.holds.list() == []


def test_holds_are_listed_by_site_with_the_images_they_keep_out_of_sight(filled, make):
    filled.samples.record("south", make.images(2, site="south", start=7), [], "ingest")
    filled.holds.hold([2, 3], FAULT, "monitor")
    assert [(hold.batch, hold.samples) for hold in filled.holds.list("south")] == [(3, 2)]
    assert filled.holds.held() == {2, 3}
    filled.holds.release(2, "sound", "it")
    assert [filled.holds.samples_held(site) for site in ("north", "south")] == [0, 2]


def test_labels_of_a_held_batch_judge_no_version_until_it_is_released(registry, make):
    images = [*make.images(2), *(dataclasses.replace(image, label=None) for image in make.images(4)[2:])]
    with_label, late, early = images[0], images[2], images[3]
    scores, then = {"benign": 0.8, "malignant": 0.2}, datetime(2026, 3, 1, tzinfo=UTC)
    asked = [(image, site) for image in (with_label, late, early) for site in ("north", "")]
    # With its site by one version, without by another: of one version's the first would count alone.
    said = [Prediction("lesion", 1 if site else 2, site, image.digest, scores, then) for image, site in asked]
    registry.predictions.add([one for one in said if (one.digest, one.site) == (early.digest, "")])
    registry.late_labels.add([OfferedLabel(early.digest, "benign")], "lab")
    registry.samples.record("north", images, [], "ingest")
    registry.predictions.add(said)
    registry.late_labels.add([OfferedLabel(late.digest, "benign")], "lab")
    assert len(registry.predictions.labelled("lesion")) == 6
    registry.holds.hold([1], FAULT, "monitor")
    assert registry.predictions.labelled("lesion") == []
    registry.holds.release(1, "sound", "it")
    assert len(registry.predictions.labelled("lesion")) == 6
