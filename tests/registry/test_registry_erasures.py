"""Erasing a subject on both databases: what goes, what others keep, what stays for ever, and kills half way."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from continual.domain.errors import ConflictError, NotFoundError, RegistryError
from continual.domain.samples import QuarantineEntry
from registry import ErasureOrder, open_registry

WHY = "the patient withdrew consent"


def _order(subject="subject-1", site="north", **more):
    return ErasureOrder(site, subject, "officer", WHY, **more)


def _files(artifacts):
    return {path.name for path in Path(artifacts).rglob("*") if path.is_file()}


@pytest.fixture
def filled(registry, make):
    """Six pictures of three subjects at north, two of which south shares."""
    images = [
        dataclasses.replace(image, subject=f"subject-{number // 2}") for number, image in enumerate(make.images(6))
    ]
    registry.samples.record("north", images, [], "ingest")
    registry.samples.record("south", [dataclasses.replace(image, site="south") for image in images[3:5]], [], "ingest")
    return registry


def test_a_subjects_samples_and_images_go_and_all_others_stay_whole(filled, artifacts):
    gone = [sample for sample in filled.samples.list("north") if sample.subject == "subject-1"]
    others = [sample for sample in filled.samples.list() if (sample.site, sample.subject) != ("north", "subject-1")]
    done = filled.erasures.erase(_order(findings={"versions": [1]}))
    # Of the subject's two pictures one is shared with south.
    assert (done.samples, done.artifacts, done.quarantined) == (2, 1, 0)
    assert filled.samples.list() == others
    for sample in others:
        assert len(filled.samples.read(sample)) == 3000
    assert _files(artifacts) == {sample.artifact for sample in others}
    assert filled.samples.stored([sample.digest for sample in gone]) == {gone[0].digest, gone[1].digest} & {
        sample.digest for sample in others
    }


def test_the_ledger_keeps_who_why_the_pseudonym_and_counts_and_nothing_of_the_images(filled):
    digests = [sample.digest for sample in filled.samples.list()]
    before = filled.ledger.verify()
    done = filled.erasures.erase(_order(findings={"versions": []}))
    (entry,) = filled.ledger.list(after=before)
    assert (entry.event, entry.actor, entry.position) == ("subject_erased", "officer", done.position)
    assert entry.payload == {
        "site": "north",
        "subject": "subject-1",
        "reason": WHY,
        "samples": 2,
        "artifacts": 1,
        "masks": 0,
        "quarantined": 0,
        "findings": {"versions": []},
    }
    assert not any(digest in str(entry.payload) for digest in digests)
    assert filled.ledger.verify() == before + 1
    assert filled.erasures.list() == filled.erasures.list("north", "subject-1") == [done]
    assert filled.erasures.list("south") == []


def test_erasing_again_changes_nothing(filled):
    assert filled.erasures.erase(_order()) is not None
    entries = filled.ledger.verify()
    assert filled.erasures.erase(_order()) is None
    assert filled.ledger.verify() == entries


def test_a_subject_that_returns_stands_on_the_side_it_always_stood(registry, make):
    images = make.images(20)
    registry.samples.record("north", images, [], "ingest")
    sides = {sample.subject: sample.split for sample in registry.samples.list()}
    for subject in sides:
        registry.erasures.erase(_order(subject))
    assert registry.samples.list() == []
    # Other pictures, one by one and in another order: an assignment anew would give other sides.
    for image in reversed(make.images(20, start=20)):
        returned = dataclasses.replace(image, subject=f"subject-{int(image.subject.split('-')[1]) - 20}")
        registry.samples.record("north", [returned], [], "ingest")
    assert {sample.subject: sample.split for sample in registry.samples.list()} == sides


def test_quarantine_entries_of_the_subjects_pictures_go_and_others_stay(filled, make):
    image = next(one for one in make.images(6) if one.subject == "subject-2")
    stored = {sample.digest: sample for sample in filled.samples.list("north")}[image.digest]
    contradicting = dataclasses.replace(image, subject=stored.subject, label="another")
    naming = QuarantineEntry("north", 7, "e" * 64, f"subject {stored.subject} is listed twice; keep one row")
    unrelated = QuarantineEntry("north", 8, "f" * 64, "the file is empty; export it again")
    filled.samples.record("north", [contradicting], [naming, unrelated], "ingest")
    assert len(filled.samples.quarantine()) == 3
    assert filled.erasures.erase(_order(stored.subject)).quarantined == 2
    assert [held.file_digest for held in filled.samples.quarantine()] == [unrelated.file_digest]


def test_a_subject_never_taken_in_is_not_found_and_the_sites_are_named(filled):
    for call in (lambda: filled.erasures.erase(_order("nobody")), lambda: filled.erasures.site_of("nobody", "north")):
        with pytest.raises(NotFoundError, match=r"'north'; sites with subjects: north, south; check name and site"):
            call()
    with pytest.raises(NotFoundError, match="at any site"):
        filled.erasures.site_of("nobody")


def test_a_pseudonym_of_two_sites_needs_the_site(filled):
    with pytest.raises(ConflictError, match=r"known at 2 sites \(north, south\)"):
        filled.erasures.site_of("subject-1")
    assert filled.erasures.site_of("subject-1", "south") == "south"
    assert filled.erasures.site_of("subject-0") == "north"


def test_an_erasure_without_a_reason_is_refused(filled):
    with pytest.raises(RegistryError, match="reason has 0 characters"):
        filled.erasures.erase(dataclasses.replace(_order(), reason=""))
    assert len(filled.samples.list("north")) == 6


@pytest.mark.parametrize("place", ["before_deletion", "before_commit"])
def test_an_erasure_killed_at_its_worst_moment_is_finished_by_running_it_again(
    database, artifacts, start_child, make, place
):
    with open_registry(database, artifacts) as registry:
        registry.samples.record("north", make.images(5), [], "ingest")
    child = start_child("erase", database, artifacts, 0, place)
    assert any("REACHED" in line for line in child.stdout)
    child.kill()
    child.wait()
    with open_registry(database, artifacts) as registry:
        assert len(registry.samples.list()) == 5
        assert len(_files(artifacts)) == (5 if place == "before_deletion" else 4)
        assert registry.erasures.list() == []
        assert registry.erasures.erase(_order()).samples == 1
        assert {len(registry.samples.read(sample)) for sample in registry.samples.list()} == {3000}
        assert len(registry.samples.list()) == len(_files(artifacts)) == 4
        assert registry.ledger.verify() == 2


def test_an_intake_that_counted_on_an_erased_image_stores_it_again(filled, make, monkeypatch):
    """The erasure falls between the intake's look at the store and its rows."""
    image = dataclasses.replace(make.images(6)[0], site="west", subject="another")
    store = type(filled.samples)._store

    def store_then_erase(samples, images, already):
        addresses = store(samples, images, already)
        monkeypatch.undo()
        assert filled.erasures.erase(_order("subject-0")).artifacts == 2
        return addresses

    monkeypatch.setattr(type(filled.samples), "_store", store_then_erase)
    assert filled.samples.record("west", [image], [], "ingest").new == 1
    (sample,) = filled.samples.list("west")
    assert filled.samples.read(sample) == image.data


def test_erased_rows_are_overwritten_in_the_database_file(tmp_path, artifacts, make):
    with open_registry(f"sqlite:///{tmp_path}/registry.db", artifacts) as registry:
        registry.samples.record("north", make.images(3), [], "ingest")
        address = registry.samples.list("north")[0].artifact
        subject = registry.samples.list("north")[0].subject
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert address.encode() in (tmp_path / "registry.db").read_bytes()
        registry.erasures.erase(_order(subject))
    # Closing the last connection writes the log back and removes it.
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("registry.db*"))
    assert address.encode() not in kept
    assert subject.encode() in kept


def test_erased_rows_do_not_wait_in_the_log_while_another_process_has_the_database_open(tmp_path, artifacts, make):
    """A service keeps the database open for weeks, and the log would be emptied only when the last one closes it."""
    path = tmp_path / "registry.db"
    (image,) = make.images(1)
    with (
        open_registry(f"sqlite:///{path}", artifacts) as registry,
        open_registry(f"sqlite:///{path}", artifacts) as api,
    ):
        assert api.samples.sites() == ()
        registry.samples.record("north", [dataclasses.replace(image, label="a-label-of-one")], [], "ingest")
        registry.erasures.erase(ErasureOrder("north", image.subject, "officer", "consent withdrawn"))
        left = {file.name: file.read_bytes().count(b"a-label-of-one") for file in tmp_path.glob("registry.db*")}
    assert set(left.values()) == {0}, left


def test_sizes_are_those_of_the_stored_images(filled):
    samples = filled.samples.list()
    assert filled.samples.sizes(samples) == {sample.digest: 3000 for sample in samples}
    filled.artifacts.delete(samples[0].artifact)
    assert filled.samples.sizes(samples[:1]) == {samples[0].digest: 0}
