"""Intake through the flow's own function: nothing twice, and bad files held back without losing the others."""

import json
import shutil
from pathlib import Path

from continual.domain.samples import Split
from continual.imaging import write_simulated_hospitals

FEW = ("anna", "bert", "carl", "dora")


def stored_bytes(workspace: Path) -> bytes:
    """Everything the workspace holds, the key left out."""
    files = (path for path in sorted(workspace.rglob("*")) if path.is_file() and path.name != "pseudonym.key")
    return b"\n".join(path.read_bytes() for path in files)


def artifact_files(workspace: str) -> list[Path]:
    return sorted(path for path in (Path(workspace) / "artifacts").rglob("*") if path.is_file())


def test_a_second_intake_of_the_same_manifest_stores_nothing_twice(desk):
    rows = desk.cells("first", FEW)
    first = desk.take_in(rows, "first")
    files = artifact_files(desk.workspace)
    again = desk.take_in(rows, "first")
    assert (first.new, first.duplicates, first.quarantined) == (8, 0, 0)
    assert (again.new, again.duplicates, again.quarantined, again.batch) == (0, 8, 0, None)
    assert artifact_files(desk.workspace) == files
    with desk.registry() as registry:
        assert len(registry.samples.list("first")) == 8
        assert [batch.new for batch in registry.samples.batches("first")] == [8]


def test_each_bad_file_is_held_back_with_its_reason_and_every_good_one_is_stored(released):
    folder = released.folder
    good = released.cells("second", FEW)
    row = good[0].__class__
    (folder / "second/empty.png").write_bytes(b"")
    (folder / "second/letter.png").write_text("Dear colleague, the image is attached.")
    shutil.copy(folder / good[0].path, folder / "second/copied-under-another-name.png")
    whole = (folder / good[1].path).read_bytes()
    (folder / "second/cut.png").write_bytes(whole[: len(whole) // 2])
    bad = [
        row("second/not-there.png", "second", "red", "erik"),
        row("second/empty.png", "second", "red", "erik"),
        row("second/letter.png", "second", "red", "erik"),
        row("second/cut.png", "second", "red", "erik"),
        row(good[1].path, "second", "green", "bert"),
    ]
    twin = row("second/copied-under-another-name.png", "second", good[0].label, good[0].subject)
    summary = released.take_in([*bad, *good, twin], "second", "cells")
    assert (summary.new, summary.duplicates, summary.quarantined) == (8, 1, 5)
    with released.registry() as registry:
        assert len(registry.samples.list("second")) == 8
        held = registry.samples.quarantine("second")
        assert sorted(entry.position for entry in held) == [1, 2, 3, 4, 5]
        reasons = {entry.position: entry.reason for entry in held}
        assert "missing" in reasons[1]
        assert "'green' was never seen by this adapter; known: blue, red" in reasons[5]
        for reason in reasons.values():
            assert "; " in reason
            assert "erik" not in reason
            assert ".png" not in reason


def told(desk, *arguments):
    """What `continual quarantine` prints."""
    from typer.testing import CliRunner

    from flows.commands.command_line import app

    ended = CliRunner().invoke(app, ["quarantine", *arguments, "--workspace", str(desk.workspace)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_a_person_can_read_why_files_were_held_back_until_they_come_in(released):
    from flows.ingest import intake_line

    rows = released.cells("second", FEW)
    odd = rows[0].__class__(rows[0].path, "second", "green", rows[0].subject)
    gone = [rows[0].__class__(f"second/gone-{number}.png", "second", "red", "erik") for number in range(6)]
    summary = released.take_in([odd, *gone, *rows[1:]], "second", "cells")
    assert intake_line(summary).endswith("7 quarantined (why: continual quarantine second)")
    found = json.loads(told(released, "second", "--json"))
    assert [(each["position"], each["settled"]) for each in found] == [(number, False) for number in range(1, 8)]
    table = " ".join(told(released).split())
    assert "Held back at intake" in table
    assert "2, 3, 4, 5 ..." in table
    released.take_in(rows, "second", "cells")
    assert [each["position"] for each in json.loads(told(released, "--json"))] == [2, 3, 4, 5, 6, 7]
    assert len(json.loads(told(released, "--all", "--json"))) == 7


def test_a_new_label_is_taken_in_as_long_as_no_adapter_says_which_labels_it_knows(desk):
    rows = desk.cells("first", FEW)
    renamed = [row.__class__(row.path, row.site, "green", row.subject) for row in rows]
    assert desk.take_in(renamed, "first", "not-yet-released").new == 8
    with desk.registry() as registry:
        assert registry.samples.classes() == ("green",)


def test_one_subject_name_in_two_sites_is_two_people(desk):
    desk.take_in(desk.cells("first", FEW), "first")
    desk.take_in(desk.cells("second", FEW, seed=2), "second")
    with desk.registry() as registry:
        subjects = {site: {s.subject for s in registry.samples.list(site)} for site in ("first", "second")}
    assert len(subjects["first"]) == len(subjects["second"]) == 4
    assert not subjects["first"] & subjects["second"]


def test_the_same_subject_in_a_later_intake_stays_on_its_side_of_the_split(desk):
    desk.take_in(desk.cells("first", seed=1), "first")
    desk.take_in(desk.cells("first", seed=2), "first")
    with desk.registry() as registry:
        samples = registry.samples.list("first")
    sides: dict[str, set[Split]] = {}
    for sample in samples:
        sides.setdefault(sample.subject, set()).add(sample.split)
    assert len(samples) == 160
    assert len(sides) == 40
    assert all(len(splits) == 1 for splits in sides.values())
    assert {split for splits in sides.values() for split in splits} == set(Split)


def test_a_label_that_comes_later_is_added_to_the_stored_picture(desk):
    rows = desk.cells("first", FEW)
    bare = [row.__class__(row.path, row.site, "", row.subject) for row in rows]
    desk.take_in(bare, "first")
    summary = desk.take_in(rows, "first")
    assert (summary.new, summary.duplicates, summary.relabelled) == (0, 8, 8)
    with desk.registry() as registry:
        assert {sample.label for sample in registry.samples.list("first")} == {"blue", "red"}


def test_a_dicom_folder_leaves_no_patient_in_the_workspace(desk, tmp_path):
    import pydicom

    from flows.ingest import take_in
    from flows.requests import Incoming

    labels = write_simulated_hospitals(tmp_path / "incoming", 5, 6)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(tmp_path.rglob("*.dcm"))]
    workspace = Path(desk.workspace)
    for site in ("northgate", "riverside", "hillcrest"):
        summary = take_in(str(workspace), Incoming(str(tmp_path / "incoming"), str(labels)), site, None)
        assert (summary.new, summary.quarantined) == (6, 0)
    kept = stored_bytes(workspace)
    names = {str(header[keyword].value) for header in headers for keyword in ("PatientName", "PatientID", "StudyDate")}
    assert len(names) > 10
    assert [name for name in names if name.encode() in kept] == []
    assert [header.SOPInstanceUID for header in headers if header.SOPInstanceUID.encode() in kept] == []
    assert b"IM0000" not in kept
    assert b"Aurora Imaging" in kept
