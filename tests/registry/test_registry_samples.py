"""The sample store on both databases."""

import dataclasses
import math
import random
import time
from datetime import UTC, datetime

import pytest

from continual.domain.errors import ArtifactError, ConflictError, NotFoundError, RegistryError
from continual.domain.samples import IntakeSummary, QuarantineEntry, Split
from registry import ErasureOrder, SampleCounts

HELD = QuarantineEntry("north", 4, "f" * 64, "file 4 has no pixels; export it again")


def test_recorded_images_come_back_whole(registry, make):
    images = make.images(5)
    taken = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    images[0] = dataclasses.replace(images[0], acquired_at=taken, label=None)
    assert registry.samples.record("north", images, [HELD], "ingest") == IntakeSummary("north", 1, 5, 0, 1)
    stored = {sample.digest: sample for sample in registry.samples.list()}
    for image in images:
        sample = stored[image.digest]
        assert registry.samples.read(sample) == image.data
        assert (sample.subject, sample.label, sample.tags) == (image.subject, image.label, image.tags)
        assert (sample.pixel_statistics, sample.acquired_at) == (image.pixel_statistics, image.acquired_at)
    (held,) = registry.samples.quarantine("north")
    assert (held.site, held.position, held.file_digest, held.reason) == dataclasses.astuple(HELD)
    assert registry.samples.quarantine("south") == []


def test_a_volume_comes_back_as_one_and_a_picture_does_not(registry, make):
    picture, volume = make.images(2)
    volume = dataclasses.replace(volume, depth=20, spacing_mm=(0.70312, 0.9, 2.5))
    registry.samples.record("north", [picture, volume], [], "ingest")
    stored = {sample.digest: sample for sample in registry.samples.get([picture.digest, volume.digest])}
    assert (stored[picture.digest].is_volume, stored[picture.digest].spacing_mm) == (False, None)
    assert (stored[volume.digest].is_volume, stored[volume.digest].spacing_mm) == (True, (0.70312, 0.9, 2.5))
    assert registry.samples.read(stored[volume.digest]) == volume.data


def test_counts_are_those_of_every_samples_labels_and_masks_in_order_of_first_intake(registry, make):
    assert registry.samples.counts() == {}
    images = make.images(7)
    images[:3] = [dataclasses.replace(image, label=None) for image in images[:3]]
    images[2:5] = [dataclasses.replace(image, mask_data=b"mask") for image in images[2:5]]
    registry.samples.record("north", images, [HELD], "ingest")
    registry.samples.record("east", make.images(2, site="east", start=20), [], "ingest")
    registry.samples.record("empty", [], [dataclasses.replace(HELD, site="empty")], "ingest")
    registry.holds.hold([1], "30% are upside down", "monitor")
    counts = registry.samples.counts()
    assert list(counts) == ["north", "east"]
    assert counts["north"] == SampleCounts(samples=7, labelled=4, masked=3, unlabelled=2, quarantined=1)
    assert counts["east"] == SampleCounts(samples=2, labelled=2, masked=0, unlabelled=0, quarantined=0)
    # What no site has stored yet is counted, too, by the file.
    assert registry.samples.count_quarantined() == {"empty": 1, "north": 1}


def test_a_site_whose_last_subject_is_erased_has_no_samples_and_is_still_counted(registry, make):
    registry.samples.record("north", make.images(1), [], "ingest")
    registry.erasures.erase(ErasureOrder("north", "subject-0", "it", "withdrawn"))
    nothing = SampleCounts(samples=0, labelled=0, masked=0, unlabelled=0, quarantined=0)
    assert registry.samples.counts() == {"north": nothing}
    assert tuple(registry.samples.counts()) == registry.samples.sites()


def test_same_intake_again_stores_nothing_and_writes_no_batch(registry, make):
    registry.samples.record("north", make.images(5), [HELD], "ingest")
    entries = registry.ledger.verify()
    assert registry.samples.record("north", make.images(5), [HELD], "ingest") == IntakeSummary("north", None, 0, 5, 1)
    assert len(registry.samples.list()) == 5
    assert [batch.number for batch in registry.samples.batches()] == [1]
    assert [held.file_digest for held in registry.samples.quarantine()] == [HELD.file_digest]
    assert registry.ledger.verify() == entries


def test_same_picture_twice_in_one_intake_is_one_sample(registry, make):
    images = make.images(2)
    again = dataclasses.replace(images[0], data=b"the same pixels, packed otherwise")
    summary = registry.samples.record("north", [*images, again], [], "ingest")
    assert (summary.new, summary.duplicates) == (2, 1)
    assert registry.samples.read(registry.samples.get([images[0].digest])[0]) == images[0].data


def test_duplicate_brings_the_label_that_was_missing(registry, make):
    bare = [dataclasses.replace(image, label=None) for image in make.images(3)]
    registry.samples.record("north", bare, [], "ingest")
    assert registry.samples.list(labelled=True) == []
    summary = registry.samples.record("north", make.images(3), [], "labels")
    assert summary == IntakeSummary("north", 2, 0, 3, 0, relabelled=3)
    assert [sample.label for sample in registry.samples.get([one.digest for one in make.images(3)])] == [
        "benign",
        "malignant",
        "benign",
    ]
    assert registry.samples.classes() == ("benign", "malignant")


def test_contradicting_label_is_held_back_and_the_stored_one_stays(registry, make):
    image = make.images(1)[0]
    registry.samples.record("north", [image], [], "ingest")
    other = dataclasses.replace(image, label="malignant")
    for batch in (2, None):
        assert registry.samples.record("north", [other], [], "ingest") == IntakeSummary("north", batch, 0, 0, 1)
    assert registry.samples.list()[0].label == "benign"
    (entry,) = registry.samples.quarantine("north")
    assert entry.file_digest == image.digest
    assert "'malignant' contradicts 'benign'" in entry.reason


def test_unlabelled_duplicate_never_removes_a_label(registry, make):
    image = make.images(1)[0]
    registry.samples.record("north", [image], [], "ingest")
    summary = registry.samples.record("north", [dataclasses.replace(image, label=None)], [], "ingest")
    assert summary == IntakeSummary("north", None, 0, 1, 0)
    assert registry.samples.list()[0].label == "benign"


def test_same_picture_in_two_sites_is_two_samples_over_one_artifact(registry, make):
    for site in ("south", "north"):
        registry.samples.record(site, make.images(2, site=site), [], "ingest")
    assert registry.samples.sites() == ("south", "north")
    digest = make.images(1)[0].digest
    assert registry.samples.get([digest])[0].site == "south"
    assert registry.samples.get([digest], site="north")[0].site == "north"
    assert len({sample.artifact for sample in registry.samples.list()}) == 2


def test_samples_are_listed_by_first_intake_then_digest_and_filtered(registry, make):
    registry.samples.record("south", make.images(8, site="south"), [], "ingest")
    registry.samples.record("north", make.images(4, start=20, labels=None), [], "ingest")
    registry.samples.record("south", make.images(4, site="south", start=40), [], "ingest")
    listed = registry.samples.list()
    assert [sample.site for sample in listed] == ["south"] * 12 + ["north"] * 4
    assert [s.digest for s in listed[:12]] == sorted(s.digest for s in listed[:12])
    assert {sample.site for sample in registry.samples.list(labelled=True)} == {"south"}
    assert len(registry.samples.list(batch=3)) == 4
    assert registry.samples.list(site="nowhere") == []
    by_split = [registry.samples.list(site="south", split=split) for split in Split]
    assert sorted(s.digest for part in by_split for s in part) == [s.digest for s in listed[:12]]
    assert all(sample.split is split for split, part in zip(Split, by_split, strict=True) for sample in part)


def test_samples_are_fetched_in_the_order_asked_even_by_thousands(registry, make):
    registry.samples.record("north", make.images(1010, size_bytes=10), [], "ingest")
    digests = [image.digest for image in make.images(1010, size_bytes=10)]
    random.Random(5).shuffle(digests)
    assert [sample.digest for sample in registry.samples.get([*digests, digests[0]])] == [*digests, digests[0]]
    with pytest.raises(NotFoundError, match="1 of 2 samples"):
        registry.samples.get([digests[0], "0" * 64])


def test_subject_keeps_its_split_in_every_later_intake(registry, make):
    for start in range(0, 40, 10):
        images = [
            dataclasses.replace(image, subject=f"patient-{number % 7}")
            for number, image in enumerate(make.images(10, start=start))
        ]
        registry.samples.record("north", images, [], "ingest")
    splits = {(sample.subject, sample.split) for sample in registry.samples.list()}
    assert len(splits) == 7


def test_split_of_a_subject_does_not_depend_on_the_order_of_files(registry, make):
    images = make.images(60)
    registry.samples.record("north", images, [], "ingest")
    moved = [dataclasses.replace(image, site="copy") for image in images]
    random.Random(1).shuffle(moved)
    registry.samples.record("copy", moved, [], "ingest")
    north, copy = (
        {sample.subject: sample.split for sample in registry.samples.list(site=site)} for site in ("north", "copy")
    )
    assert north == copy
    assert set(north.values()) == set(Split)


def test_demanded_split_is_kept_and_a_contradiction_is_held_back(registry, make):
    first, second, third = (dataclasses.replace(image, subject="patient") for image in make.images(3))
    registry.samples.record("north", [dataclasses.replace(first, split=Split.TEST)], [], "ingest")
    summary = registry.samples.record("north", [dataclasses.replace(second, split=Split.TRAIN), third], [], "ingest")
    assert (summary.new, summary.quarantined) == (1, 1)
    assert {sample.split for sample in registry.samples.list()} == {Split.TEST}
    assert "'train' is demanded for a subject that stands in 'test'" in registry.samples.quarantine()[0].reason


def test_a_picture_that_another_site_holds_stands_on_the_same_side_there_and_here(registry, make):
    pictures = make.images(60)
    registry.samples.record("north", pictures, [], "ingest")
    # Other patients' pictures come first, which would move everybody's place.
    strangers = make.images(20, site="south", start=500)
    again = [dataclasses.replace(image, site="south", subject=f"south-{n // 2}") for n, image in enumerate(pictures)]
    registry.samples.record("south", [*strangers, *again], [], "ingest")
    north, south = ({s.digest: s for s in registry.samples.list(site)} for site in ("north", "south"))
    order, subjects = list(Split), {}
    for digest in north:
        subjects.setdefault(south[digest].subject, []).append((south[digest].split, north[digest].split))
    for splits in subjects.values():
        # A patient there whose pictures are two patients' here stands where least is trained on.
        assert {here for here, _ in splits} == {max((there for _, there in splits), key=order.index)}
    assert len({split for splits in subjects.values() for split, _ in splits}) == 3
    demanded = dataclasses.replace(make.images(1)[0], site="west", split=Split.VALIDATION)
    registry.samples.record("west", [demanded], [], "ingest")
    assert [sample.split for sample in registry.samples.list("west")] == [Split.VALIDATION]


def test_two_rows_of_one_new_subject_cannot_demand_two_splits(registry, make):
    first, second = (dataclasses.replace(image, subject="patient") for image in make.images(2))
    offered = [dataclasses.replace(first, split=Split.TEST), dataclasses.replace(second, split=Split.TRAIN)]
    summary = registry.samples.record("north", offered, [], "ingest")
    assert (summary.new, summary.quarantined) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        {"pixel_statistics": {"mean": math.nan}},
        {"tags": {"kvp": math.inf}},
        {"tags": {"manufacturer": "Ac\x00me"}},
        {"label": "\ud800"},
        {"label": ""},
        {"subject": ""},
    ],
)
def test_image_that_no_database_can_hold_is_held_back_and_the_rest_is_stored(registry, make, fault):
    images = make.images(3)
    images[1] = dataclasses.replace(images[1], **fault)
    summary = registry.samples.record("north", images, [], "ingest")
    assert (summary.new, summary.quarantined) == (2, 1)
    assert registry.samples.quarantine()[0].position == 2


def test_very_long_reason_is_cut_and_stored_once(registry):
    entry = dataclasses.replace(HELD, reason="ü" * 5000)
    for batch in (1, None):
        assert registry.samples.record("north", [], [entry, entry], "ingest").batch == batch
    assert [len(held.reason) for held in registry.samples.quarantine()] == [500]


def test_site_with_nothing_but_quarantine_has_a_batch_but_is_no_site_yet(registry):
    assert registry.samples.record("north", [], [HELD], "ingest") == IntakeSummary("north", 1, 0, 0, 1)
    assert registry.samples.sites() == ()
    (batch,) = registry.samples.batches("north")
    assert (batch.new, batch.quarantined, batch.actor) == (0, 1, "ingest")


def test_a_batch_counts_what_was_refused_for_the_first_time(registry, make):
    others = [dataclasses.replace(HELD, file_digest=letter * 64) for letter in "de"]
    registry.samples.record("north", [], [HELD, *others], "ingest")
    new = dataclasses.replace(HELD, file_digest="0" * 64)
    summary = registry.samples.record("north", make.images(1), [HELD, *others, new, new], "ingest")
    # The person who sends them hears of all; the batch tells of two files that nobody had seen.
    assert summary.quarantined == 5
    assert [batch.quarantined for batch in registry.samples.batches("north")] == [3, 2]


def test_items_of_another_site_are_refused_before_anything_is_stored(registry, make):
    with pytest.raises(ConflictError, match="'south'"):
        registry.samples.record("north", [*make.images(1), *make.images(1, site="south")], [], "ingest")
    assert registry.samples.list() == []


@pytest.mark.parametrize("site", ["", "x" * 501, "a\x00b"])
def test_unusable_site_name_is_a_registry_error(registry, site):
    with pytest.raises(RegistryError, match="site"):
        registry.samples.record(site, [], [], "ingest")


def test_damaged_picture_is_refused_when_it_is_read(registry, make):
    registry.samples.record("north", make.images(1), [], "ingest")
    (sample,) = registry.samples.list()
    registry.artifacts.path(sample.artifact).write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        registry.samples.read(sample)


def test_fifteen_hundred_images_are_recorded_in_seconds(registry, make):
    images = make.images(1500)
    begun = time.perf_counter()
    registry.samples.record("north", images, [], "ingest")
    assert time.perf_counter() - begun < 15, "a few seconds on a free machine; a shared one gets some slack"


def test_two_processes_that_record_the_same_images_store_them_once(database, artifacts, start_child):
    from registry import open_registry

    children = [start_child("record", database, artifacts, 120) for _ in range(2)]
    said = sorted(child.communicate().split("\n")[1] for child in children)
    assert said == ["new=0 duplicates=120", "new=120 duplicates=0"]
    with open_registry(database, artifacts) as registry:
        assert len(registry.samples.list()) == 120
        assert len(registry.samples.batches()) == 1
        assert registry.ledger.verify() == 1
