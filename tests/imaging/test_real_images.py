"""Real files: 319 DICOM files of many vendors, some broken, photographs of blood cells, retinas with their vessels."""

import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from continual.domain.errors import UnreadableImageError
from continual.domain.samples import IGNORED, CleanImage, QuarantineEntry
from continual.imaging import DecodedImage, clean_images, decode_image, decode_mask, list_dicom_folder, read_manifest

RealData = Callable[[str], Path]


def plain_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def decoded(real_data: RealData) -> dict[str, DecodedImage | UnreadableImageError]:
    """Every file of the corpus: its image or the one error that may come."""
    folder = real_data("dicom")
    found: dict[str, DecodedImage | UnreadableImageError] = {}
    for row in plain_rows(folder):
        try:
            found[row["path"]] = decode_image((folder / row["path"]).read_bytes())
        except UnreadableImageError as error:
            found[row["path"]] = error
    return found


def test_every_file_a_plain_reader_decodes_is_decoded(real_data: RealData, decoded) -> None:
    readable = [
        row for row in plain_rows(real_data("dicom"))
        if row["parse"] == "ok" and row["pixels"] not in ("", "none") and not row["pixels"].startswith("ERR")
    ]  # fmt: skip
    assert len(readable) > 200
    for row in readable:
        image = decoded[row["path"]]
        assert isinstance(image, DecodedImage), f"{row['path']}: {image}"
        assert image.pixels.shape == (int(float(row["Rows"])), int(float(row["Columns"])), 3), row["path"]
        assert image.pixels.dtype == np.uint8


def test_every_other_file_is_refused_with_a_remedy_and_without_its_header(real_data: RealData, decoded) -> None:
    refused = {path: str(error) for path, error in decoded.items() if isinstance(error, UnreadableImageError)}
    assert len(refused) > 40
    for path, message in refused.items():
        assert "; " in message
        assert Path(path).stem not in message


def test_one_slice_in_lossless_transfer_syntaxes_is_one_image(decoded) -> None:
    images = [image for path, image in decoded.items() if path.startswith("transfer_syntax/siemens_mr_9ts/")]
    lossless = [
        image for image in images
        if isinstance(image, DecodedImage) and "JPEG Baseline" not in str(image.tags["transfer_syntax"])
        and image.tags["transfer_syntax"] != "JPEG 2000 Image Compression"
    ]  # fmt: skip
    assert len({image.tags["transfer_syntax"] for image in lossless}) >= 4
    for image in lossless[1:]:
        np.testing.assert_array_equal(image.pixels, lossless[0].pixels)


def test_byte_order_and_packing_do_not_change_a_palette_image(decoded) -> None:
    plain, big_endian, packed = (
        decoded[f"pydicom_data/OBXXXX1A{variant}.dcm"].pixels for variant in ("", "_expb", "_rle")
    )
    assert plain.max() > 200
    np.testing.assert_array_equal(plain, big_endian)
    np.testing.assert_array_equal(plain, packed)


def test_no_patient_of_the_corpus_is_named_in_the_tags(real_data: RealData, decoded) -> None:
    looked_at = 0
    for path, image in decoded.items():
        if not isinstance(image, DecodedImage):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(real_data("dicom") / path, stop_before_pixels=True)
            words = str(header.get("PatientName", "")).replace("^", " ").split()
        for word in (word.casefold() for word in words if len(word) >= 5):
            looked_at += 1
            assert word not in repr(list(image.tags.values())).casefold(), path
    assert looked_at > 100


def test_the_corpus_goes_through_the_whole_room_and_nothing_is_lost(real_data: RealData) -> None:
    started = time.monotonic()
    intake = list_dicom_folder(real_data("dicom"), None)
    yielded = list(clean_images(intake.sources, b"key"))
    assert time.monotonic() - started < 60
    assert len(yielded) == len(intake.sources) > 250
    clean = [each for each in yielded if isinstance(each, CleanImage)]
    held = [each for each in yielded if isinstance(each, QuarantineEntry)]
    assert len(clean) > 180
    # Every file's position is told once, whichever way it went.
    positions = [entry.position for entry in (*intake.problems, *intake.sources)]
    assert len(set(positions)) == len(positions)
    assert all(entry.reason and len(entry.file_digest) == 64 for entry in (*held, *intake.problems))


def test_photographs_of_blood_cells_come_through_clean(real_data: RealData) -> None:
    intake = read_manifest(real_data("white_blood_cells") / "manifest.csv", sites=("barcelona", "bccd"))
    assert intake.problems == ()
    sources = intake.sources[::12]
    yielded = list(clean_images(sources, b"key"))
    assert {source.site for source in sources} == {"barcelona", "bccd"}
    assert all(isinstance(each, CleanImage) and (each.width, each.height) == (128, 128) for each in yielded)
    assert [each.site for each in yielded] == [source.site for source in sources]


def test_retinas_come_through_with_its_vessels_and_its_field_of_view(real_data: RealData) -> None:
    intake = read_manifest(real_data("retinal_vessels") / "manifest.csv")
    assert intake.problems == ()
    # Every eighth; the flows' tests take in all of them.
    sources = intake.sources[::8]
    clean = list(clean_images(sources, b"key"))
    assert {each.site for each in clean} == {"chase_db1", "drive", "hrf"}
    for each in clean:
        assert isinstance(each, CleanImage), each
        assert each.label is None
        mask = decode_mask(each.mask_data or b"")
        assert mask.shape == (each.height, each.width)
        assert set(np.unique(mask)) == {0, 1, IGNORED}
        inside = mask[mask != IGNORED]
        # A camera sees a disc; published vessel shares of these three sets lie near a tenth of it.
        assert 0.4 < inside.size / mask.size < 0.9
        assert 0.03 < np.mean(inside == 1) < 0.20
