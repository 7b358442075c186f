"""A folder of DICOM files and its table of labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from continual.domain.errors import ManifestError
from continual.imaging import list_dicom_folder


@pytest.fixture
def hospital(tmp_path: Path, ramp: np.ndarray, dicom_bytes: Callable[..., bytes]) -> Path:
    """Two sites: north with two images, south with one; and bystanders."""
    for site, name, number in (("north", "b.dcm", 2), ("north", "a", 1), ("south", "deep/c.dcm", 3)):
        path = tmp_path / site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_bytes(ramp, SOPInstanceUID=f"1.2.{number}", PatientID=f"P{number}"))
    (tmp_path / "north" / "notes.txt").write_text("read me")
    return tmp_path


def labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_images_are_listed_in_name_order_with_labels_by_uid_and_the_folder_as_site(hospital: Path) -> None:
    intake = list_dicom_folder(hospital, labels(hospital, "sop_instance_uid,label\n1.2.1,sick\n1.2.3,well\n"))
    assert [(s.site, s.path.name, s.label, s.subject) for s in intake.sources] == [
        ("north", "a", "sick", None),
        ("north", "b.dcm", None, None),
        ("south", "c.dcm", "well", None),
    ]
    assert intake.problems == ()
    assert intake.sites == ("north", "south")


def test_the_table_may_name_paths_sites_and_subjects(hospital: Path) -> None:
    table = labels(hospital, "path,label,site,subject\nnorth/a,sick,east,s9\nnorth/b.dcm,well,,\n")
    intake = list_dicom_folder(hospital, table)
    assert {(s.path.name, s.site, s.subject) for s in intake.sources} == {
        ("a", "east", "s9"), ("b.dcm", "north", None), ("c.dcm", "south", None),
    }  # fmt: skip


def test_asked_sites_filter_and_order(hospital: Path) -> None:
    intake = list_dicom_folder(hospital, None, sites=("south", "north"))
    assert [source.site for source in intake.sources] == ["south", "north", "north"]
    assert list_dicom_folder(hospital, None, sites=("south",)).sites == ("south",)
    with pytest.raises(ManifestError, match="sites there: north, south"):
        list_dicom_folder(hospital, None, sites=("east",))


def test_positions_count_every_file_in_name_order(hospital: Path) -> None:
    names = sorted(path for path in hospital.rglob("*") if path.is_file())
    for source in list_dicom_folder(hospital, None).sources:
        assert names[source.position - 1] == source.path


def test_broken_files_become_problems_and_the_rest_is_listed(hospital: Path) -> None:
    whole = (hospital / "north" / "b.dcm").read_bytes()
    (hospital / "north" / "empty-Doe.dcm").write_bytes(b"")
    (hospital / "north" / "headless-Doe.dcm").write_bytes(whole[132:])
    (hospital / "north" / "garbled").write_bytes(whole[:132] + b"\x02\x00\xff\xffgarbled")
    (hospital / "south" / "not-Doe.png").write_bytes(b"hello")
    intake = list_dicom_folder(hospital, None)
    assert len(intake.sources) >= 3
    assert len(intake.sources) + len(intake.problems) == 7
    assert not any("Doe" in entry.reason or "north" in entry.reason for entry in intake.problems)
    assert len({entry.file_digest for entry in intake.problems}) == len(intake.problems)


def test_files_without_pixels_by_design_are_passed_over(
    hospital: Path, ramp: np.ndarray, dicom_dataset: Callable, dataset_bytes: Callable
) -> None:
    report = dicom_dataset(ramp, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, Columns=None)
    del report.PixelData
    (hospital / "north" / "report.dcm").write_bytes(dataset_bytes(report))
    directory = dicom_dataset(ramp, SOPClassUID="1.2.840.10008.1.3.10", Rows=None, Columns=None)
    del directory.PixelData
    (hospital / "DICOMDIR").write_bytes(dataset_bytes(directory))
    intake = list_dicom_folder(hospital, None)
    assert len(intake.sources) == 3
    assert intake.problems == ()


def test_pictures_in_the_folder_are_taken_too(hospital: Path, picture_bytes: Callable[..., bytes]) -> None:
    (hospital / "south" / "photo.jpg").write_bytes(picture_bytes(kind="JPEG"))
    intake = list_dicom_folder(hospital, labels(hospital, "path,label,subject\nsouth/photo.jpg,well,s4\n"))
    (photo,) = (source for source in intake.sources if source.path.suffix == ".jpg")
    assert (photo.label, photo.subject, photo.site) == ("well", "s4", "south")


def test_contradicting_labels_hold_the_image_back_and_equal_ones_do_not(hospital: Path) -> None:
    table = labels(hospital, "sop_instance_uid,label\n1.2.1,sick\n1.2.1,well\n1.2.2,well\n1.2.2,well\n")
    intake = list_dicom_folder(hospital, table)
    assert ["two different rows" in entry.reason for entry in intake.problems] == [True]
    assert [source.path.name for source in intake.sources] == ["b.dcm", "c.dcm"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("label\nsick\n", "neither 'sop_instance_uid' nor 'path'"),
        ("path,finding\na,b\n", "column 'label' is missing"),
        (
            "sop_instance_uid,label\n9.9.9,sick\n",
            "none of its 1 values of 'sop_instance_uid' names any of the 3 images",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_told(hospital: Path, text: str, told: str) -> None:
    with pytest.raises(ManifestError, match="labels 'labels.csv'") as caught:
        list_dicom_folder(hospital, labels(hospital, text))
    assert told in str(caught.value)


def test_an_absent_or_imageless_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        list_dicom_folder(tmp_path / "absent", None)
    with pytest.raises(ManifestError, match="holds no image"):
        list_dicom_folder(tmp_path, None)


def test_a_file_outside_any_site_folder_needs_exactly_one_site(hospital: Path) -> None:
    (hospital / "north" / "a").rename(hospital / "loose-Doe.dcm")
    with pytest.raises(ManifestError, match="in no site's folder") as caught:
        list_dicom_folder(hospital, None)
    assert "Doe" not in str(caught.value)
    intake = list_dicom_folder(hospital, None, sites=("north",))
    assert {source.path.name for source in intake.sources} == {"b.dcm", "loose-Doe.dcm"}
