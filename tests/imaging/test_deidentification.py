"""Identifiers planted everywhere a header has room for them, looked for in every byte that comes out."""

import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from continual.domain.samples import CleanImage, QuarantineEntry, pseudonym
from continual.imaging import ImageSource, clean_images, list_dicom_folder

KEY = b"a secret of this test"

# A spelling that occurs in no legitimate tag and, with its letters beyond f, in no digest.
NAMES = {
    "PatientName": "ZQPATIENT^ZQGIVEN",
    "PatientID": "ZQID4711",
    "OtherPatientIDs": "ZQOTHERID",
    "OtherPatientNames": "ZQALIAS^ZQALIASGIVEN",
    "PatientBirthName": "ZQBORN",
    "PatientMotherBirthName": "ZQMOTHER",
    "PatientAddress": "ZQSTREET 5",
    "PatientTelephoneNumbers": "ZQPHONE",
    "PatientComments": "ZQPATIENTCOMMENT",
    "MedicalRecordLocator": "ZQRECORD",
    "InstitutionName": "ZQHOSPITAL",
    "InstitutionAddress": "ZQTOWN",
    "StationName": "ZQSTATION",
    "ReferringPhysicianName": "ZQREFERRER",
    "PerformingPhysicianName": "ZQPERFORMER",
    "OperatorsName": "ZQOPERATOR",
    "AccessionNumber": "ZQACCESSION",
    "StudyID": "ZQSTUDY",
    "StudyDescription": "chest of ZQDESCRIBED",
    "SeriesDescription": "ZQSERIES",
    "ProtocolName": "ZQPROTOCOL",
    "ImageComments": "ZQIMAGECOMMENT",
    "DeviceSerialNumber": "ZQSERIAL",
    "PatientBirthDate": "19470823",
    "StudyDate": "20260317",
    "AcquisitionDate": "20260317",
    "StudyTime": "142536",
    "SOPInstanceUID": "1.2.826.0.1.4711.1",
    "StudyInstanceUID": "1.2.826.0.1.4711.2",
    "SeriesInstanceUID": "1.2.826.0.1.4711.3",
    "FrameOfReferenceUID": "1.2.826.0.1.4711.4",
}
TRACES = ("zq", "4711", "19470823", "20260317", "0317", "142536", "1947")


def traces_in(yielded: CleanImage | QuarantineEntry) -> list[str]:
    """The planted spellings that can be found in anything yielded, PNG bytes and every representation included."""
    fields = {field.name: getattr(yielded, field.name) for field in dataclasses.fields(yielded)}
    # Digits of measured numbers and of digests may spell a date by chance: they are looked at by name below.
    numbers = fields.pop("pixel_statistics", {})
    assert all(isinstance(value, float) for value in numbers.values())
    for name in ("digest", "file_digest", "subject", "png"):
        value = fields.pop(name, "")
        if isinstance(value, bytes):
            assert [kind for kind, _ in png_chunks(value)] == ["IHDR", "IDAT", "IEND"]
        else:
            assert set(value) <= set("0123456789abcdef")
    text = repr(fields).casefold()
    return [trace for trace in TRACES if trace in text]


def png_chunks(png: bytes) -> list[tuple[str, int]]:
    """Kind and length of every chunk: only header, pixels and end may be there (PNG, ISO/IEC 15948)."""
    chunks: list[tuple[str, int]] = []
    at = 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if not (chunks and chunks[-1][0] == kind.decode() == "IDAT"):
            chunks.append((kind.decode(), length))
        at += 12 + length
    return chunks


@pytest.fixture
def planted(ramp: np.ndarray, dicom_dataset: Callable[..., pydicom.Dataset]) -> pydicom.Dataset:
    dataset = dicom_dataset(
        ramp, SpecificCharacterSet="ISO_IR 100", KVP=120, Manufacturer="Aurora",
        ManufacturerModelName="unit of ZQPATIENT", **NAMES,
    )  # fmt: skip
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID, item.PersonName = "1.2.826.0.1.4711.5", "ZQNESTED"
    inner = pydicom.Dataset()
    inner.PatientID = "ZQDEEP"
    item.ReferencedPatientSequence = [inner]
    dataset.ReferencedImageSequence = [item]
    private = dataset.private_block(0x0011, "ZQ PRIVATE CREATOR", create=True)
    private.add_new(0x01, "LO", "ZQPRIVATE")
    nested = pydicom.Dataset()
    nested.PatientName = "ZQPRIVATENESTED"
    private.add_new(0x02, "SQ", [nested])
    dataset.file_meta.SourceApplicationEntityTitle = "ZQAETITLE"
    return dataset


def test_no_planted_identifier_leaves_with_a_clean_image(planted, dataset_bytes, source_of) -> None:
    source = source_of(dataset_bytes(planted), name="ZQPATH", subject=None)
    (clean,) = clean_images([source], KEY)
    assert isinstance(clean, CleanImage)
    assert traces_in(clean) == []
    assert clean.subject == pseudonym(KEY, "north", "ZQID4711")
    assert clean.tags["manufacturer"] == "Aurora"
    assert "manufacturer_model_name" not in clean.tags
    assert clean.acquired_at is not None
    assert clean.acquired_at.isoformat() == "2026-03-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "fault", ["truncated", "no pixels", "blank", "burned in", "too wide", "bad rows", "unknown syntax", "vanished"]
)
def test_no_planted_identifier_leaves_with_a_reason(fault: str, planted, dataset_bytes, source_of) -> None:
    if fault == "no pixels":
        del planted.PixelData
    elif fault == "blank":
        planted.PixelData = bytes(len(planted.PixelData))
    elif fault == "burned in":
        planted.BurnedInAnnotation = "YES"
    elif fault == "too wide":
        planted.Columns = 9000
    elif fault == "bad rows":
        del planted.Rows
        planted.add_new(0x00280010, "LO", "ZQROWS")
    elif fault == "unknown syntax":
        planted.PixelData = pydicom.encaps.encapsulate([planted.PixelData])
        planted["PixelData"].VR = "OB"
        planted.file_meta.TransferSyntaxUID = "1.2.826.0.1.4711.6"
        planted.set_original_encoding(False, True)
    data = dataset_bytes(planted)
    source = source_of(data[:-500] if fault == "truncated" else data, name="ZQPATH", subject="ZQSUBJECT")
    if fault == "vanished":
        source.path.unlink()
    (entry,) = clean_images([source], KEY)
    assert isinstance(entry, QuarantineEntry), fault
    assert traces_in(entry) == []
    assert source.path.parent.name not in entry.reason


def test_warnings_and_logs_of_the_reader_quote_no_header(
    planted, dataset_bytes, source_of, caplog: pytest.LogCaptureFixture
) -> None:
    planted.StudyID = "ZQ" * 40
    data = dataset_bytes(planted).replace(b"120.0 ", b"ZQ0.0 ").replace(b"ISO_IR 100", b"ZQCHARSETS")
    assert b"ZQ0.0 " in data
    assert b"ZQCHARSETS" in data
    caplog.clear()
    (yielded,) = clean_images([source_of(data)], KEY)
    assert traces_in(yielded) == []
    assert "ZQ" not in caplog.text


def test_a_folder_of_named_files_tells_no_name(planted, dataset_bytes, tmp_path: Path) -> None:
    folder = tmp_path / "north" / "ZQFOLDER"
    folder.mkdir(parents=True)
    (folder / "ZQWHOLE.dcm").write_bytes(dataset_bytes(planted))
    (folder / "ZQBROKEN.dcm").write_bytes(dataset_bytes(planted)[:140])
    (folder / "ZQNOTHING.dcm").write_bytes(b"")
    intake = list_dicom_folder(tmp_path, None)
    yielded = [*intake.problems, *clean_images(intake.sources, KEY)]
    assert len(yielded) == 3
    assert [traces_in(each) for each in yielded] == [[], [], []]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_metadata_of_a_photograph_leaves(kind: str, source_of) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x0132] = "ZQDESCRIPTION", "ZQARTIST", "2026:03:17 14:25:36"
    exif[0x9C9C] = "ZQXPCOMMENT".encode("utf-16le")
    exif.get_ifd(0x8825)[1] = "ZQGPS"
    pixels = np.random.default_rng(0).integers(0, 255, size=(32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    if kind == "JPEG":
        Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, comment=b"ZQCOMMENT", icc_profile=b"ZQPROFILE")
    else:
        info = PngImagePlugin.PngInfo()
        info.add_text("Patient", "ZQTEXT")
        info.add_itxt("Comment", "ZQITXT", zip=True)
        Image.fromarray(pixels).save(buffer, "PNG", exif=exif, pnginfo=info, icc_profile=b"ZQPROFILE")
    assert b"ZQ" in buffer.getvalue()
    (clean,) = clean_images([source_of(buffer.getvalue(), subject="ZQSUBJECT")], KEY)
    assert isinstance(clean, CleanImage)
    assert traces_in(clean) == []


KEPT_FREE_TEXT = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "SoftwareVersions", "BodyPartExamined")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.text("abcdefghijklmnopqrstuvwxyzäöüé", min_size=3, max_size=12),
    keyword=st.sampled_from(KEPT_FREE_TEXT),
    around=st.sampled_from(["{}", "for {} only", "{}-2", "x/{}", "_{}_"]),
    upper=st.booleans(),
)
def test_a_kept_text_that_repeats_the_patients_name_is_dropped(
    family: str, keyword: str, around: str, upper: bool, ramp, dicom_bytes, source_of
) -> None:
    name = "zq" + family
    spelled = around.format(name.upper() if upper else name)
    data = dicom_bytes(ramp, SpecificCharacterSet="ISO_IR 192", PatientName=f"{name}^Ada", **{keyword: spelled})
    (clean,) = clean_images([source_of(data)], KEY)
    assert isinstance(clean, CleanImage)
    assert "zq" not in repr(clean.tags).casefold()


def test_a_pseudonym_depends_on_key_site_and_subject_and_on_nothing_else(picture_bytes, source_of) -> None:
    def subject(key: bytes, **fields: str) -> str:
        source: ImageSource = source_of(picture_bytes(), **fields)
        (clean,) = clean_images([source], key)
        assert isinstance(clean, CleanImage)
        return clean.subject

    assert subject(KEY, subject="a") == subject(KEY, subject="a")
    others = {subject(b"other", subject="a"), subject(KEY, subject="b"), subject(KEY, subject="a", site="south")}
    assert len(others | {subject(KEY, subject="a")}) == 4
