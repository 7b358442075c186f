"""Labels that come late, from the manifest to the verdict: what was predicted then is what is judged."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from continual.domain.drift import Action, Verdict
from continual.domain.errors import ManifestError, NotFoundError

OTHER = {"blue": "red", "red": "blue"}


def arrive(desk, last, *, seed=70):
    """Two unlabelled pictures each of subjects v0 to v<last - 1> at the first site; their rows with the true labels."""
    rows = desk.cells("first", tuple(f"v{number}" for number in range(last)), seed=seed)
    desk.take_in([replace(row, label="") for row in rows], "first", "cells")
    return rows


def look(desk, site="first"):
    from flows.monitor import look as look_at

    return look_at(desk.workspace, "cells", site, now=True)


def write_labels(desk, rows, columns=("path", "label")):
    path = desk.folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def take(desk, rows, columns=("path", "label"), adapter="cells"):
    from flows.drift.late_labels import take_labels
    from flows.workplace import open_workplace

    path = write_labels(desk, rows, columns)
    with open_workplace(desk.workspace) as workplace:
        return take_labels(workplace, path, adapter)


def true(rows):
    return [(row.path, row.label) for row in rows]


def test_a_look_keeps_what_the_champion_says_of_new_images_once(released):
    rows = arrive(released, 12)
    look(released)
    with released.registry() as registry:
        first = registry.predictions.list("cells", "first")
        assert len(first) == len(rows)
        assert {said.digest for said in first} == {s.digest for s in registry.samples.list("first") if s.batch == 2}
        assert all(sum(said.scores.values()) == pytest.approx(1) for said in first)
    take(released, true(rows))
    look(released)
    with released.registry() as registry:
        assert registry.predictions.list("cells", "first") == first


def test_labels_are_matched_to_the_predictions_made_then_and_again_changes_nothing(released):
    rows = arrive(released, 12)
    look(released)
    report = take(released, true(rows))
    assert (report.rows, report.new, report.known, report.unknown, report.quarantined) == (24, 24, 0, (), ())
    (row,) = report.performance
    assert (row.adapter, row.version, row.site, row.labelled, row.subjects) == ("cells", 1, "first", 24, 12)
    assert row.low <= row.balanced_accuracy <= row.high
    with released.registry() as registry:
        entries = registry.ledger.verify()
    again = take(released, true(rows))
    assert replace(again, new=24, known=0) == report
    with released.registry() as registry:
        assert registry.ledger.verify() == entries


def test_permuted_labels_of_images_that_look_alike_are_concept_shift_and_true_ones_are_quiet(released):
    rows = arrive(released, 40)
    assert look(released).verdict is Verdict.NO_DRIFT
    take(released, [(row.path, OTHER[row.label]) for row in rows])
    report = look(released)
    assert (report.verdict, report.action) == (Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE), report.reason
    assert "labels are met less often" in report.reason
    risk = report.performance.risk
    assert risk.called
    assert risk.bound_low <= report.performance.current <= risk.bound_high < report.performance.reference
    with released.registry() as registry:
        assert registry.drift.get(report.id) == report


def test_true_labels_leave_the_verdict_as_it_was_however_often_one_looks(released):
    rows = arrive(released, 40)
    look(released)
    for count in (20, 40, 60, 80):
        take(released, true(rows)[:count])
        report = look(released)
        assert report.verdict is Verdict.NO_DRIFT, report.reason
    assert report.performance.risk.labelled >= 20
    assert not report.performance.risk.called


def test_faulty_rows_are_told_with_their_reason_and_good_ones_are_never_lost(released):
    rows = arrive(released, 12)
    look(released)
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    (released.folder / "notes.png").write_bytes(b"no image")
    told = [
        (rows[0].path, "", "", ""),
        ("nowhere.png", "blue", "", ""),
        ("notes.png", "blue", "", ""),
        (rows[1].path, "blue", "no/site", ""),
        (rows[2].path, "blue", "", "yesterday"),
        (rows[2].path, "blue", "", "2026-03-01T12:00"),
        (rows[3].path, "blue", "", future),
        (rows[4].path, "blue", "", past),
        ("", "blue", "", ""),
        (rows[5].path, "b" * 501, "", ""),
        (rows[6].path, rows[6].label, "first", ""),
        (rows[6].path, rows[6].label, "", ""),
        (rows[7].path, "blue", "second", ""),
    ]
    report = take(released, told, ("path", "label", "site", "labelled_at"))
    assert (report.new, report.known) == (1, 1)
    assert [each.row for each in report.quarantined] == list(range(1, 11))
    assert [each.row for each in report.unknown] == [13]
    words = ("0 characters", "cannot be read", "no image", "site is not a name", "with a zone", "with a zone")
    words += ("future", "before the prediction", "names no picture", "501 characters")
    for each, word in zip(report.quarantined, words, strict=True):
        assert word in each.reason
        assert "png" not in each.reason.lower().replace("png, jpeg", "")


def test_digests_name_pictures_as_well_as_files_do(released):
    rows = arrive(released, 12)
    look(released)
    with released.registry() as registry:
        digests = [said.digest for said in registry.predictions.list("cells")]
    report = take(released, [(digest, "blue") for digest in digests] + [("a1", "blue")], ("digest", "label"))
    assert (report.new, len(report.quarantined)) == (len(rows), 1)
    assert "must be 64" in report.quarantined[0].reason


def test_a_category_that_no_version_knows_is_kept_and_not_scored(released):
    rows = arrive(released, 12)
    look(released)
    report = take(released, [*true(rows)[:20], *((row.path, "green") for row in rows[20:])])
    assert (report.new, report.other_classes) == (24, ("green",))
    assert (report.performance[0].labelled, report.performance[0].unscored) == (20, 4)
    with released.registry() as registry:
        assert sum(sample.label == "green" for sample in registry.samples.list("first")) == 4
    assert look(released).verdict is Verdict.NO_DRIFT


def test_one_subject_has_a_figure_and_no_interval(released):
    rows = arrive(released, 12)
    look(released)
    (row,) = take(released, true(rows)[:2]).performance
    assert (row.labelled, row.subjects, row.low, row.high) == (2, 1, None, None)
    assert row.balanced_accuracy is not None


@pytest.mark.parametrize("rows", [[], [("only", "header")]])
def test_a_manifest_without_rows_or_columns_is_refused_whole(released, rows):
    with pytest.raises(ManifestError):
        take(released, rows, ("path", "label") if not rows else ("file", "class"))


def test_an_adapter_that_is_not_there_is_named_before_anything_is_kept(released):
    rows = arrive(released, 10)
    with pytest.raises(NotFoundError, match="known: cells"):
        take(released, true(rows), adapter="lungs")
    with released.registry() as registry:
        assert registry.late_labels.arrivals("first") == {}


def test_the_command_line_tells_the_same_in_tables_and_json(released, command_environment):
    rows = arrive(released, 12)
    look(released)
    path = write_labels(released, [*true(rows), ("nowhere.png", "blue")])

    def continual(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "flows.commands.command_line", *arguments, "--workspace", released.workspace],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env=command_environment(PYTHONPATH=str(Path(__file__).parents[2])),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = continual("label", "--manifest", str(path), "--adapter", "cells")
    assert "25 rows: 24 new labels, 0 known before, 0 of unknown pictures, 1 quarantined" in said
    assert "row 25 quarantined: the file cannot be read" in said
    found = json.loads(continual("label", "--manifest", str(path), "--adapter", "cells", "--json"))
    assert (found["new"], found["known"], found["performance"][0]["labelled"]) == (0, 24, 24)
    (row,) = json.loads(continual("performance", "--adapter", "cells", "--site", "first", "--json"))
    assert (row["version"], row["month"], row["labelled"]) == (1, f"{datetime.now(UTC):%Y-%m}", 24)
    assert f"{row['balanced_accuracy']:.3f}" in continual("performance", "--adapter", "cells")
    assert "no prediction has a label yet" in continual("performance", "--adapter", "cells", "--as-of", "2026-01-01")
