"""Predictions and the labels that come for them, on both databases: first predictions stay, no label is replaced."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from continual.domain.errors import RegistryError
from continual.domain.predictions import NOBODYS, Prediction, performance_of
from continual.domain.samples import Split
from registry import ErasureOrder, LabelFate, OfferedLabel
from registry.tables import LateLabelRow

THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCORES = {"benign": 0.8, "malignant": 0.2}


def _said(digest, site="north", *, version=1, scores=SCORES, at=THEN, adapter="lesion"):
    return Prediction(adapter, version, site, digest, scores, at)


def _unlabelled(make, count=4):
    return [dataclasses.replace(image, label=None) for image in make.images(count)]


@pytest.fixture
def filled(registry, make):
    """Four pictures of four subjects at north, none labelled, all predicted by version 1."""
    images = _unlabelled(make)
    registry.samples.record("north", images, [], "ingest")
    registry.predictions.add([_said(image.digest) for image in images])
    registry.digests = [image.digest for image in images]
    return registry


def _fates(outcomes):
    return [outcome.fate for outcome in outcomes]


def test_the_first_prediction_of_a_version_on_a_picture_stays(registry):
    first = _said("a" * 64)
    assert registry.predictions.add([first, _said("b" * 64), _said("b" * 64, scores={"benign": 0.1})]) == 2
    later = _said("a" * 64, scores={"benign": 0.1, "malignant": 0.9}, at=THEN + timedelta(days=1))
    assert registry.predictions.add([later, dataclasses.replace(later, version=2)]) == 1
    assert registry.predictions.said("lesion", 1, "north", ["a" * 64, "c" * 64]) == {"a" * 64: first}
    assert len(registry.predictions.list("lesion")) == 3
    assert registry.predictions.list("other") == registry.predictions.list("lesion", "south") == []


def test_what_is_kept_already_waits_for_no_writer(registry, monkeypatch):
    said = [_said("a" * 64), _said("b" * 64)]
    registry.predictions.add(said)
    with monkeypatch.context() as patch, registry._database.write():
        # A second writer would be refused soon instead of after half a minute.
        patch.setattr("registry.database.LOCK_WAIT_S", 1)
        assert registry.predictions.add(said) == 0


@pytest.mark.parametrize("scores", [{"benign": math.nan}, {"benign": math.inf}, {"be\x00nign": 0.5}])
def test_scores_that_are_no_numbers_keep_nothing_of_their_batch(registry, scores):
    with pytest.raises(RegistryError, match="scores"):
        registry.predictions.add([_said("a" * 64), _said("b" * 64, scores=scores)])
    assert registry.predictions.list() == []


def test_two_thousand_predictions_are_kept_at_once_and_found_again(registry):
    said = [_said(f"{number:064x}") for number in range(2500)]
    assert registry.predictions.add(said) == 2500
    assert registry.predictions.add(said) == 0
    assert len(registry.predictions.said("lesion", 1, "north", [each.digest for each in said])) == 2500


def test_a_late_label_reaches_sample_predictions_and_ledger_once(filled):
    before = filled.ledger.verify()
    offered = [OfferedLabel(filled.digests[0], "benign"), OfferedLabel(filled.digests[1], "malignant", "north")]
    assert _fates(filled.late_labels.add(offered, "lab")) == [LabelFate.KEPT] * 2
    assert _fates(filled.late_labels.add(offered, "lab")) == [LabelFate.KNOWN] * 2
    assert [sample.label for sample in filled.samples.get(filled.digests)] == ["benign", "malignant", None, None]
    assert filled.ledger.verify() == before + 1
    (entry,) = filled.ledger.list(after=before)
    assert (entry.event, entry.actor, entry.payload["labels"]) == ("labels_arrived", "lab", 2)
    labelled = filled.predictions.labelled("lesion")
    assert [(each.label, each.prediction.predicted) for each in labelled] == [
        (each.label, "benign") for each in sorted(labelled, key=lambda each: each.prediction.digest)
    ]
    assert {each.subject for each in labelled} < {sample.subject for sample in filled.samples.list()}


def test_a_contradiction_is_refused_and_the_stored_label_stays(filled):
    digest = filled.digests[0]
    filled.late_labels.add([OfferedLabel(digest, "benign")], "lab")
    (refused,) = filled.late_labels.add([OfferedLabel(digest, "malignant")], "lab")
    assert (refused.fate, "contradicts 'benign'" in refused.reason) == (LabelFate.REFUSED, True)
    assert filled.samples.get([digest])[0].label == "benign"


def test_two_labels_for_one_picture_in_one_call_are_both_refused_and_a_repeated_row_is_kept_once(filled):
    one, two, three, _ = filled.digests
    offered = [OfferedLabel(*row) for row in ((one, "benign"), (one, "malignant"), (two, "benign"), (two, "benign"))]
    found = filled.late_labels.add([*offered, OfferedLabel(three, "benign")], "lab")
    assert _fates(found) == [
        LabelFate.REFUSED,
        LabelFate.REFUSED,
        LabelFate.KEPT,
        LabelFate.KNOWN,
        LabelFate.KEPT,
    ]
    assert filled.samples.get([one])[0].label is None


def test_a_picture_that_nobody_knows_is_unknown_and_keeps_nothing(filled):
    before = filled.ledger.verify()
    offered = [OfferedLabel("e" * 64, "benign"), OfferedLabel(filled.digests[0], "benign", "south")]
    found = filled.late_labels.add(offered, "lab")
    assert _fates(found) == [LabelFate.UNKNOWN_PICTURE] * 2
    assert all("no sample and no prediction" in each.reason for each in found)
    assert (filled.ledger.verify(), filled.late_labels.arrivals("south")) == (before, {})


def test_a_clock_in_the_future_or_before_the_prediction_is_refused_row_by_row(filled):
    future = datetime.now(UTC) + timedelta(hours=1)
    times = (future, THEN - timedelta(seconds=1), THEN, None)
    offered = [OfferedLabel(digest, "benign", None, at) for digest, at in zip(filled.digests, times, strict=True)]
    found = filled.late_labels.add(offered, "lab")
    assert _fates(found) == [LabelFate.REFUSED, LabelFate.REFUSED, LabelFate.KEPT, LabelFate.KEPT]
    assert "future" in found[0].reason
    assert "before the prediction" in found[1].reason


def test_a_picture_of_two_sites_needs_its_site_named(filled, make):
    shared = dataclasses.replace(_unlabelled(make, 1)[0], site="south")
    filled.samples.record("south", [shared], [], "ingest")
    offered = [OfferedLabel(shared.digest, "benign"), OfferedLabel(shared.digest, "benign", "south")]
    found = filled.late_labels.add(offered, "lab")
    assert _fates(found) == [LabelFate.REFUSED, LabelFate.KEPT]
    assert "2 sites have this picture (north, south)" in found[0].reason
    assert filled.samples.get([shared.digest], "north")[0].label is None


def test_a_prediction_without_site_or_sample_is_matched_by_its_picture_alone(registry):
    registry.predictions.add([_said("a" * 64, site=""), _said("b" * 64, site="")])
    offered = [OfferedLabel("a" * 64, "benign"), OfferedLabel("b" * 64, "benign", "north")]
    assert _fates(registry.late_labels.add(offered, "lab")) == [LabelFate.KEPT] * 2
    assert [each.label for each in registry.predictions.labelled("lesion")] == ["benign"] * 2
    assert len(registry.predictions.labelled("lesion", "north")) == 1


def test_what_was_known_at_a_time_holds_no_label_and_no_prediction_that_came_later(filled):
    filled.late_labels.add([OfferedLabel(filled.digests[0], "benign", None, THEN)], "lab")
    (first,) = filled.predictions.labelled("lesion")
    filled.late_labels.add([OfferedLabel(filled.digests[1], "benign", None, THEN)], "lab")
    filled.predictions.add([_said(filled.digests[0], version=2, at=datetime.now(UTC))])
    # Made at THEN, as was said; known only since it came.
    assert filled.predictions.labelled("lesion", as_of=first.known_at) == [first]
    assert filled.predictions.labelled("lesion", as_of=first.known_at - timedelta(microseconds=1)) == []
    assert len(filled.predictions.labelled("lesion")) == 3


def test_a_label_that_a_later_intake_brings_is_known_since_that_intake(filled, make):
    middle = datetime.now(UTC)
    filled.samples.record("north", make.images(4), [], "ingest")
    labelled = filled.predictions.labelled("lesion")
    assert len(labelled) == 4
    assert all(each.known_at > middle for each in labelled)
    assert len(filled.late_labels.arrivals("north")) == 4


def test_of_when_a_label_was_made_the_month_is_kept(filled, database):
    made = datetime(2026, 3, 31, 12, 30, tzinfo=timezone(timedelta(hours=-2)))
    filled.late_labels.add([OfferedLabel(filled.digests[0], "benign", labelled_at=made)], "lab")
    engine = create_engine(database)
    with Session(engine) as session:
        assert session.scalars(select(LateLabelRow.labelled_at)).one() == datetime(2026, 3, 1, tzinfo=UTC)
    engine.dispose()


@pytest.mark.parametrize("site", ["north", NOBODYS])
def test_a_label_that_came_before_its_sample_waits_for_it(registry, make, site):
    (image,) = _unlabelled(make, 1)
    registry.predictions.add([_said(image.digest, site)])
    registry.late_labels.add([OfferedLabel(image.digest, "benign")], "lab")
    other = dataclasses.replace(image, label="malignant")
    summary = registry.samples.record("north", [other], [], "ingest")
    assert (summary.new, summary.quarantined) == (0, 1)
    assert "'malignant' contradicts 'benign'" in registry.samples.quarantine("north")[0].reason
    registry.samples.record("north", [image], [], "ingest")
    assert registry.samples.get([image.digest])[0].label == "benign"
    assert len(registry.predictions.labelled("lesion")) == 1
    assert _fates(registry.late_labels.add([OfferedLabel(image.digest, "malignant")], "lab")) == [LabelFate.REFUSED]
    assert _fates(registry.late_labels.add([OfferedLabel(image.digest, "benign")], "lab")) == [LabelFate.KNOWN]


def test_what_a_version_was_trained_on_is_no_evidence_about_it(registry, make):
    registry.samples.record("north", make.images(10), [], "ingest")
    draft = make.draft()
    draft = dataclasses.replace(draft, record={**draft.record, "learnt_batches": {"north": 1}})
    number = registry.adapters.register(draft, make.files(), "trainer").number
    samples = registry.samples.list("north")
    registry.predictions.add([_said(s.digest, version=v, at=datetime.now(UTC)) for s in samples for v in (number, 9)])
    labelled = registry.predictions.labelled("lesion")
    trained = {each.prediction.digest for each in labelled if each.trained_on}
    assert trained == {sample.digest for sample in samples if sample.split is Split.TRAIN}
    assert {each.prediction.version for each in labelled if each.trained_on} == {number}


def test_a_picture_that_was_asked_for_with_and_without_its_site_counts_once(filled):
    filled.predictions.add([_said(digest, NOBODYS) for digest in filled.digests])
    filled.late_labels.add([OfferedLabel(digest, "benign") for digest in filled.digests], "lab")
    for site in (None, "north"):
        labelled = filled.predictions.labelled("lesion", site)
        assert sorted(each.prediction.digest for each in labelled) == sorted(filled.digests)
        assert {each.site for each in labelled} == {"north"}
    (row,) = performance_of(labelled)
    assert (row.labelled, row.subjects) == (4, 4)
    # Of a picture that was never taken in nobody knows the site; two sites that asked are two.
    filled.predictions.add([_said("f" * 64, site) for site in (NOBODYS, "north", "south")])
    filled.late_labels.add([OfferedLabel("f" * 64, "benign", site) for site in ("north", "south")], "lab")
    found = [each.site for each in filled.predictions.labelled("lesion") if each.prediction.digest == "f" * 64]
    assert sorted(found) == ["north", "south"]


def test_a_picture_whose_label_came_first_is_no_evidence_once_it_was_learnt(registry, make):
    images = _unlabelled(make, 10)
    registry.predictions.add([_said(image.digest, NOBODYS) for image in images])
    registry.late_labels.add([OfferedLabel(image.digest, "benign") for image in images], "lab")
    (first, *_) = registry.predictions.labelled("lesion")
    registry.samples.record("north", images, [], "ingest")
    draft = make.draft()
    draft = dataclasses.replace(draft, record={**draft.record, "learnt_batches": {"north": 1}})
    number = registry.adapters.register(draft, make.files(), "trainer").number
    samples = registry.samples.list("north")
    now = datetime.now(UTC)
    registry.predictions.add([_said(s.digest, NOBODYS, version=number + 1, at=now) for s in samples])
    registry.adapters.register(dataclasses.replace(draft, parent=number), make.files("more"), "trainer")
    labelled = registry.predictions.labelled("lesion")
    trained = {each.prediction.digest for each in labelled if each.trained_on and each.prediction.version > number}
    assert trained == {sample.digest for sample in samples if sample.split is Split.TRAIN}
    assert {each.subject for each in labelled} == {sample.subject for sample in samples}
    assert {each.known_at for each in labelled} == {first.known_at}


def test_what_was_known_at_a_time_does_not_change_by_a_label_that_comes_later(filled, make):
    filled.predictions.add([_said("f" * 64, NOBODYS)])
    filled.late_labels.add([OfferedLabel("f" * 64, "benign", "north")], "lab")
    (before,) = filled.predictions.labelled("lesion")
    (image,) = make.images(1)
    south = dataclasses.replace(image, digest="f" * 64, site="south", label="malignant")
    filled.samples.record("south", [south], [], "ingest")
    assert filled.predictions.labelled("lesion", as_of=before.known_at) == [before]
    # Now two sites differ on it, so that it says nothing.
    assert filled.predictions.labelled("lesion") == []


def test_erasing_a_subject_takes_predictions_that_another_site_asked_for(filled):
    digest = filled.digests[0]
    filled.predictions.add([_said(digest, "south"), _said(digest, NOBODYS)])
    (sample,) = filled.samples.get([digest])
    filled.erasures.erase(ErasureOrder("north", sample.subject, "officer", "consent withdrawn"))
    assert {said.digest for said in filled.predictions.list()} == set(filled.digests[1:])


def test_erasing_a_subject_takes_its_predictions_and_late_labels_and_no_others(filled, make):
    south = dataclasses.replace(_unlabelled(make, 1)[0], site="south")
    filled.samples.record("south", [south], [], "ingest")
    digests = filled.digests
    filled.predictions.add([_said(digests[0], site="south"), _said(digests[0], site=""), _said(digests[1], site="")])
    filled.late_labels.add([OfferedLabel(digest, "benign", "north") for digest in digests], "lab")
    for subject in {sample.subject for sample in filled.samples.get(digests[:2], "north")}:
        filled.erasures.erase(ErasureOrder("north", subject, "officer", "consent withdrawn"))
    left = {(said.site, said.digest) for said in filled.predictions.list()}
    # South's patient still has the first picture, so whose the prediction without a site was cannot be told.
    assert left == {("north", digests[2]), ("north", digests[3]), ("south", digests[0]), ("", digests[0])}
    assert set(filled.late_labels.arrivals("north")) == set(digests[2:])
    assert filled.ledger.verify() > 0
