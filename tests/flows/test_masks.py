"""Images with masks through the flows' own functions: taken in, corrected, counted, erased."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError
from continual.domain.samples import IGNORED, Split, pseudonym
from continual.imaging import decode_mask

SUBJECTS = ("anna", "bert", "carl")


@pytest.fixture
def lesions(desk):
    """Takes in one picture of each subject with a mask; `grown` masks are larger, `named` subjects have one at all."""

    def take(grown=False, named=SUBJECTS, marked=255, adapter=None, new_classes=False):
        from flows.ingest import take_in
        from flows.requests import Incoming

        rows = desk.cells("first", SUBJECTS)[::2]
        seen = np.full((64, 64), 255, np.uint8)
        seen[:8] = 0
        Image.fromarray(seen).save(desk.folder / "seen.png")
        with (desk.folder / "masks.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "mask", "field_of_view", "site", "subject"))
            for number, row in enumerate(rows):
                mask = np.zeros((64, 64), np.uint8)
                mask[: 20 + 10 * grown, number] = marked
                Image.fromarray(mask).save(desk.folder / f"lesion-of-{row.subject}.png")
                cells = (f"lesion-of-{row.subject}.png", "seen.png") if row.subject in named else ("", "")
                writer.writerow((row.path, *cells, row.site, row.subject))
        incoming = Incoming(str(desk.folder / "masks.csv"))
        return take_in(desk.workspace, incoming, "first", adapter, new_classes=new_classes)

    return take


def test_masks_come_late_and_are_corrected_and_nothing_is_stored_twice(desk, lesions):
    from flows.ingest import intake_line

    assert intake_line(lesions(named=())) == "first: 3 new, 0 already stored, 0 quarantined"
    assert intake_line(lesions()) == "first: 0 new, 3 already stored, 3 relabelled, 0 quarantined"
    assert lesions().batch is None
    assert lesions(grown=True).relabelled == 3
    with desk.registry() as registry:
        for sample in registry.samples.list(labelled=Task.SEGMENTATION):
            mask = decode_mask(registry.samples.read_mask(sample))
            assert (mask[:8] == IGNORED).all()
            assert np.count_nonzero(mask == 1) == 30 - 8


def test_a_mask_with_a_class_that_the_adapter_never_saw_is_held_back(desk, lesions):
    from continual.domain.adapters import CHAMPION, GateDecision, VersionDraft

    draft = VersionDraft(
        adapter="lesions",
        parent=None,
        strategy="naive",
        backbone_digest="b" * 64,
        trained_on=("first",),
        classes=("lesion",),
        metric="dice",
        metrics={"first": 0.7},
        record={"options": {"plan": {}}},
    )
    lesions(named=())
    with desk.registry() as registry:
        version = registry.adapters.register(draft, {"record.json": b"{}"}, "test")
        gate = GateDecision(accepted=True, findings=(), margin=-0.1, confidence=0.9)
        registry.adapters.promote("lesions", version.number, gate, CHAMPION, "test", "the gate passed")
    assert lesions(adapter="lesions").relabelled == 3
    strange = lesions(adapter="lesions", marked=2)
    assert (strange.relabelled, strange.quarantined) == (0, 3)
    assert lesions(adapter="lesions", marked=2, new_classes=True).relabelled == 3


def test_nobody_is_asked_for_labels_where_masks_are_the_answer(desk, lesions, tmp_path, monkeypatch):
    from flows.drift.label_requests import write_cases
    from flows.workplace import open_workplace

    lesions(named=())
    with open_workplace(desk.workspace) as workplace:
        champion = SimpleNamespace(number=1, metric="dice")
        monkeypatch.setattr(workplace.registry.adapters, "current", lambda *_: champion)
        with pytest.raises(SettingsError, match="answers with masks, not labels"):
            write_cases(workplace, "lesions", "first", tmp_path / "cases", 3)


def test_status_counts_masks_where_there_are_any(desk, lesions):
    from flows.commands.overview import overview, show_overview
    from flows.workplace import open_workplace

    def shown():
        paper = io.StringIO()
        with open_workplace(desk.workspace) as workplace:
            found = overview(workplace)
            show_overview(Console(file=paper, width=120), found)
        return found["sites"][0], paper.getvalue()

    lesions(named=())
    row, text = shown()
    assert (row["samples"], row["labelled"], row["masks"]) == (3, 0, 0)
    assert "masks" not in text
    lesions(named=SUBJECTS[:2])
    row, text = shown()
    assert (row["labelled"], row["masks"]) == (0, 2)
    assert "masks" in text


def test_an_erased_subject_leaves_neither_its_masks_nor_the_ones_they_replaced(desk, lesions):
    from flows.erasure import Person, erase_person
    from flows.workplace import open_workplace

    lesions()
    lesions(grown=True)
    artifacts = Path(desk.workspace) / "artifacts"
    before = {path.name for path in artifacts.rglob("*") if path.is_file()}
    with open_workplace(desk.workspace) as workplace:
        report = erase_person(workplace, Person(patient_id="anna", site="first"), "consent withdrawn")
        left = workplace.registry.samples.list()
        assert pseudonym(workplace.key, "first", "anna") not in {sample.subject for sample in left}
        assert all(workplace.registry.samples.read_mask(sample) for sample in left)
    assert (report.erased.samples, report.erased.artifacts, report.erased.masks) == (1, 1, 2)
    assert report.as_record()["masks"] == 2
    assert len(before) - len({path.name for path in artifacts.rglob("*") if path.is_file()}) == 3


def test_every_retina_is_taken_in_with_its_vessels_and_no_name(desk, real_data):
    from flows.ingest import take_in
    from flows.requests import Incoming

    manifest = real_data("retinal_vessels") / "manifest.csv"
    sites = {"drive": (40, 40), "chase_db1": (28, 14), "hrf": (45, 45)}
    for site, (images, _) in sites.items():
        summary = take_in(desk.workspace, Incoming(str(manifest)), site, None)
        assert (summary.new, summary.quarantined) == (images, 0)
    with desk.registry() as registry:
        assert len(registry.samples.list(labelled=Task.SEGMENTATION)) == len(registry.samples.list()) == 113
        for site, (images, subjects) in sites.items():
            held = registry.samples.list(site)
            assert len({sample.subject for sample in held}) == subjects
            shares = {split: sum(sample.split is split for sample in held) / images for split in Split}
            assert shares == pytest.approx({Split.TRAIN: 0.60, Split.VALIDATION: 0.15, Split.TEST: 0.25}, abs=0.1)
            masks = [decode_mask(registry.samples.read_mask(sample)) for sample in held]
            assert {mask.shape for mask in masks} == {(512, 512)}
            # Vessels are near a tenth of what a camera of the eye's background sees, at every site.
            assert 0.05 < np.mean([np.mean(mask[mask != IGNORED] == 1) for mask in masks]) < 0.15
    # A subject such as drive21 cannot be looked for: a row's site stands before its pseudonym, which may begin with 21.
    kept = b"".join(path.read_bytes() for path in Path(desk.workspace).rglob("*") if path.is_file())
    for name in (b"chase01", b"drive/images", b"hrf01dr", b"Image_01L", b"retinal_vessels"):
        assert name not in kept
