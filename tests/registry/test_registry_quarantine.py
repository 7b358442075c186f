"""What was held back, and what of it is stored by now."""

import dataclasses

from continual.domain.samples import QuarantineEntry
from registry import ErasureOrder


def held_back(image, position=1, reason="label 'green' is unknown"):
    """The entry of an image whose file was refused."""
    return QuarantineEntry(image.site, position, image.file_digest, reason)


def from_files(images):
    """The images with digests of the files that they came in."""
    return [dataclasses.replace(image, file_digest=f"{n:064x}") for n, image in enumerate(images, start=1)]


def still_held(registry):
    """What the batches count as held back, oldest first."""
    return [batch.quarantined for batch in registry.samples.batches("north")]


def test_a_file_that_is_stored_after_all_no_longer_counts_against_its_batch(registry, make):
    images = from_files(make.images(3))
    refused = [held_back(images[0]), held_back(images[0], reason="a mask is unknown"), held_back(images[1])]
    registry.samples.record("north", images[2:], refused, "ingest")
    assert still_held(registry) == [3]
    registry.samples.record("north", [images[0], images[2]], refused[2:], "ingest")
    assert still_held(registry) == [1, 0]
    assert [(each.file_digest, each.reason) for each in registry.samples.quarantine("north")] == [
        (entry.file_digest, entry.reason) for entry in refused
    ]
    assert [entry.payload["left_quarantine"] for entry in registry.ledger.list()] == [0, 2]


def test_that_a_file_left_quarantine_is_written_down_once_also_where_nothing_else_is(registry, make):
    (image,) = from_files(make.images(1))
    other = dataclasses.replace(image, file_digest="f" * 64)
    registry.samples.record("north", [image], [held_back(other)], "ingest")
    # The same picture in another file that was refused: nothing is new but that it is no longer held back.
    assert [registry.samples.record("north", [other], [], "ingest").batch for _ in range(2)] == [2, None]
    assert still_held(registry) == [0, 0]


def test_a_wrong_label_for_a_stored_picture_is_held_back_and_says_nothing_of_the_scanner(registry, make):
    images = make.images(2)
    registry.samples.record("north", images, [], "ingest")
    wrong = [dataclasses.replace(image, label="another") for image in images]
    assert registry.samples.record("north", wrong, [], "ingest").quarantined == 2
    assert len(registry.samples.quarantine("north")) == 2
    assert still_held(registry) == [0, 0]
    assert [entry.payload["left_quarantine"] for entry in registry.ledger.list()] == [0, 0]


def test_two_sites_with_the_same_file_do_not_settle_each_others_quarantine(registry, make):
    (image,) = from_files(make.images(1))
    registry.samples.record("north", [], [held_back(image)], "ingest")
    registry.samples.record("south", [dataclasses.replace(image, site="south")], [], "ingest")
    assert still_held(registry) == [1]
    assert [batch.quarantined for batch in registry.samples.batches()] == [1, 0]


def test_an_erasure_does_not_bring_settled_refusals_back(registry, make):
    patient = [dataclasses.replace(image, subject="p" * 16, label="benign") for image in make.images(3)]
    registry.samples.record("north", patient, [], "ingest")
    wrong = [dataclasses.replace(image, label="malignant") for image in patient]
    registry.samples.record("north", [*make.images(2, start=50), *wrong], [], "ingest")
    assert still_held(registry) == [0, 0]
    erased = registry.erasures.erase(ErasureOrder("north", "p" * 16, "officer", "consent withdrawn"))
    assert erased.quarantined == 3
    assert still_held(registry) == [0, 0]


def test_why_and_when_files_were_refused_is_told_until_they_come_in(registry, make):
    images = from_files(make.images(2))
    registry.samples.record("north", [], [held_back(images[0]), held_back(images[1], position=2)], "ingest")
    wrong = dataclasses.replace(make.images(1)[0], label="another", file_digest=images[0].file_digest)
    registry.samples.record("north", [images[0]], [], "ingest")
    registry.samples.record("north", [wrong], [], "ingest")
    found = registry.samples.quarantine("north")
    assert [(each.position, each.batch, each.settled) for each in found] == [(1, 1, True), (2, 1, False), (1, 3, False)]
    assert "contradicts" in found[2].reason
    assert found[0].refused_at == registry.samples.batches("north")[0].created_at
    # A wrong label is no image in quarantine, nor is a file with two reasons two.
    registry.samples.record("north", [], [held_back(images[1], reason="its mask is unknown")], "ingest")
    assert registry.samples.count_quarantined() == {"north": 1}
    assert registry.samples.quarantine("south") == []
