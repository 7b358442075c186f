"""Tables of labels that come late: pictures by file or digest, faulty rows told without file names."""

import csv
from datetime import UTC, datetime

import nibabel as nib
import numpy as np
import pytest

from continual.domain.errors import ManifestError, UnreadableImageError
from continual.imaging import clean_images, content_digest, read_label_manifest


@pytest.fixture
def table(tmp_path):
    def write(columns, *rows):
        path = tmp_path / "labels.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        return path

    return write


def volume_bytes():
    voxels = np.random.default_rng(3).integers(-50, 900, size=(18, 20, 16)).astype(np.int16)
    return nib.Nifti1Image(voxels, np.diag([0.7, 0.9, 2.5, 1.0])).to_bytes()


def test_a_file_has_the_digest_that_an_intake_gives_its_content(picture_bytes, dicom_bytes, source_of, ramp):
    for data in (picture_bytes(1), picture_bytes(2, "JPEG"), dicom_bytes(ramp), volume_bytes()):
        (cleaned,) = clean_images([source_of(data, site="north", subject="one", label=None)], b"key")
        assert content_digest(data) == cleaned.digest
    with pytest.raises(UnreadableImageError):
        content_digest(b"no image")


def test_rows_name_pictures_by_file_or_digest_and_times_are_brought_to_utc(table, tmp_path, picture_bytes):
    (tmp_path / "DOE^JANE.png").write_bytes(picture_bytes(1))
    found = read_label_manifest(
        table(
            ("path", "digest", "label", "site", "labelled_at"),
            ("DOE^JANE.png", "", "benign", "north", "2026-03-01T12:00+01:00"),
            ("", "A" * 64, "malignant", "", ""),
            ("DOE^JANE.png", "b" * 64, "benign", "", ""),
            ("DOE^JOHN.png", "", "benign", "", ""),
            ("DOE^JANE.png", "", "be\x00nign", "", ""),
        )
    )
    first, second = found.rows
    assert (first.digest, first.site) == (content_digest(picture_bytes(1)), "north")
    assert first.labelled_at == datetime(2026, 3, 1, 11, tzinfo=UTC)
    assert (second.digest, second.site, second.labelled_at) == ("a" * 64, None, None)
    assert [fault.position for fault in found.faults] == [3, 4, 5]
    assert "two pictures" in found.faults[0].reason
    assert not any("DOE" in fault.reason for fault in found.faults)


@pytest.mark.parametrize("columns", [("label",), ("digest",), ("path", "name")])
def test_a_table_without_a_picture_or_label_column_is_refused_and_the_column_named(table, columns):
    with pytest.raises(ManifestError, match="missing"):
        read_label_manifest(table(columns, ["x"] * len(columns)))


def test_an_empty_table_is_refused(table):
    with pytest.raises(ManifestError, match="no rows"):
        read_label_manifest(table(("digest", "label")))
