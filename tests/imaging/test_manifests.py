"""The manifest: a fault of the table stops everything, a fault of a row only that row."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from continual.domain.errors import ManifestError
from continual.domain.samples import Split
from continual.imaging import read_manifest


def write(folder: Path, text: str, files: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> Path:
    for name in files:
        (folder / name).write_bytes(name.encode())
    manifest = folder / "manifest.csv"
    manifest.write_text(text, encoding="utf-8")
    return manifest


def test_rows_become_sources_in_order_with_paths_relative_to_the_manifest(tmp_path: Path) -> None:
    text = "subject,path,label,site,colour\ns1,a.png,cat,north,red\ns2,b.png,,south,\n"
    intake = read_manifest(write(tmp_path, text))
    first, second = intake.sources
    assert (first.position, first.path, first.site, first.subject, first.label) == (
        1, tmp_path / "a.png", "north", "s1", "cat",
    )  # fmt: skip
    assert (second.position, second.label, second.split, second.acquired_at, second.mask) == (2, None, None, None, None)
    assert intake.sites == ("north", "south")
    assert intake.problems == ()


def test_optional_columns_are_read(tmp_path: Path) -> None:
    text = "path,site,label,subject,split,acquired_at,mask\na.png,north,cat,s1,Test,2026-03-05T10:00:00+02:00,b.png\n"
    (source,) = read_manifest(write(tmp_path, text)).sources
    assert source.split is Split.TEST
    assert source.acquired_at == datetime(2026, 3, 5, 8, tzinfo=UTC)
    assert source.mask == tmp_path / "b.png"


def test_a_mask_is_label_enough_and_brings_its_field_of_view(tmp_path: Path) -> None:
    text = "path,mask,field_of_view,site,subject\na.png,b.png,c.png,north,s1\nb.png,,,north,s2\n"
    first, second = read_manifest(write(tmp_path, text)).sources
    assert (first.label, first.mask, first.field_of_view) == (None, tmp_path / "b.png", tmp_path / "c.png")
    assert (second.label, second.mask, second.field_of_view) == (None, None, None)


def test_a_byte_order_mark_blank_lines_and_capital_headings_are_no_obstacle(tmp_path: Path) -> None:
    text = "\ufeffPath,Site,Label,Subject\n\n a.png , north ,cat, s1\n\n"
    (source,) = read_manifest(write(tmp_path, text)).sources
    assert (source.site, source.subject) == ("north", "s1")


def test_asked_sites_filter_and_order_and_keep_the_row_numbers(tmp_path: Path) -> None:
    text = "path,site,label,subject\na.png,north,cat,s1\nb.png,south,cat,s2\nc.png,west,cat,s3\ngone.png,south,x,s4\n"
    intake = read_manifest(write(tmp_path, text), sites=("west", "south"))
    assert [(source.site, source.position) for source in intake.sources] == [("west", 3), ("south", 2)]
    assert intake.sites == ("west", "south")
    assert [(entry.site, entry.position) for entry in intake.problems] == [("south", 4)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("path,site,label,subject\n", "no rows"),
        ("path,site,label\na.png,north,cat\n", "'subject' is missing; the header has: path, site, label"),
        ("path,site,subject\na.png,north,s1\n", "'label' is missing; the header has: path, site, subject"),
        ("path;site;label;subject\na.png;north;cat;s1\n", "separate them by commas"),
        ("path,site,label,subject\na.png,,cat,s1\n", "row 1: the site is blank"),
        ("path,site,label,subject\na.png,a/b,cat,s1\n", "row 1: the site is not a name"),
        ("path,site,site,label,subject\na.png,n,n,cat,s1\n", "'site' more than once"),
        ('path,site,label,subject\n"a.png,north,cat,s1\n', "not a CSV"),
    ],
)
def test_a_fault_of_the_table_is_told_with_its_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ManifestError, match="manifest 'manifest.csv'") as caught:
        read_manifest(write(tmp_path, text))
    assert told in str(caught.value)


def test_a_missing_manifest_and_a_folder_in_its_place_are_manifest_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(ManifestError, match="cannot be read") as caught:
            read_manifest(path)
        assert str(tmp_path.parent) not in str(caught.value)


def test_bytes_that_are_no_text_are_not_a_csv(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not a CSV"):
        read_manifest(manifest)


def test_a_site_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    manifest = write(tmp_path, "path,site,label,subject\na.png,north,cat,s1\n")
    with pytest.raises(ManifestError, match="no image of site 'nroth'; sites there: north"):
        read_manifest(manifest, sites=("nroth",))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("gone-Doe.png,north,cat,s1,,,", "file is missing"),
        (",north,cat,s1,,,", "names no file"),
        ("b.png,north,cat,,,,", "names no subject"),
        ("b.png,north,cat,s1,holdout,,", "split 'holdout' is unknown; write train, validation, test"),
        ("b.png,north,cat,s1,,05.03.2026,", "not an ISO 8601 date"),
        ("b.png,north,cat,s1,,,gone-Doe.png", "mask's file is missing"),
        ("b.png,north,cat,s1,,,a.png,gone-Doe.png", "field of view's file is missing"),
        ("b.png,north,dog,s1,,,", "label 'dog' was never seen by this adapter; known: cat"),
        ("b.png\0,north,cat,s1,,,", "file is missing"),
    ],
)
def test_a_fault_of_one_row_holds_back_that_row_only(tmp_path: Path, row: str, told: str) -> None:
    header = "path,site,label,subject,split,acquired_at,mask,field_of_view\n"
    manifest = write(tmp_path, f"{header}a.png,north,cat,s0,,,\n{row}\nc.png,north,,s2,,,\n")
    intake = read_manifest(manifest, known_labels={"cat"})
    assert [source.position for source in intake.sources] == [1, 3]
    (entry,) = intake.problems
    assert (entry.site, entry.position) == ("north", 2)
    assert told in entry.reason
    assert "Doe" not in entry.reason
    expected = b"b.png" if row.startswith("b.png,") else b"2"
    assert entry.file_digest == hashlib.sha256(expected).hexdigest()


def test_a_new_label_names_the_switch_that_allows_it(tmp_path: Path) -> None:
    manifest = write(tmp_path, "path,site,label,subject\na.png,north,dog,s1\n")
    assert "allow new classes with --new-classes" in read_manifest(manifest, known_labels=("cat",)).problems[0].reason
    assert read_manifest(manifest).sources[0].label == "dog"


def test_a_subject_in_two_splits_is_held_back_whole_and_only_in_that_site(tmp_path: Path) -> None:
    rows = ["a.png,north,cat,s1,train", "b.png,north,cat,s1,test", "c.png,north,cat,s1,", "a.png,south,cat,s1,test"]
    intake = read_manifest(write(tmp_path, "path,site,label,subject,split\n" + "\n".join(rows) + "\n"))
    assert [(entry.position, "test and train" in entry.reason) for entry in intake.problems] == [
        (1, True), (2, True), (3, True),
    ]  # fmt: skip
    assert [(source.site, source.split) for source in intake.sources] == [("south", Split.TEST)]


def test_a_split_stated_once_holds_for_all_rows_of_its_subject(tmp_path: Path) -> None:
    rows = ["a.png,north,cat,s1,", "b.png,north,cat,s1,test", "c.png,north,cat,s2,"]
    intake = read_manifest(write(tmp_path, "path,site,label,subject,split\n" + "\n".join(rows) + "\n"))
    assert [source.split for source in intake.sources] == [Split.TEST, Split.TEST, None]
