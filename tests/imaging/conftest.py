"""Small files made here."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from continual.imaging import ImageSource

MakeDicom = Callable[..., pydicom.Dataset]


def make_dataset(stored: np.ndarray, **elements: Any) -> pydicom.Dataset:
    """A CT-class dataset around stored 16-bit values; `elements` override or add, None removes."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=["test", str(stored.sum())]),
        "Modality": "DX",
        "PatientID": "P1",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    with pydicom.config.disable_value_validation():
        for keyword, value in (values | elements).items():
            if value is not None:
                setattr(dataset, keyword, value)
    dataset.add_new(0x7FE00010, "OW", stored.astype("<u2").tobytes())
    return dataset


def to_bytes(dataset: pydicom.Dataset) -> bytes:
    """The dataset as a file; malformed values are written as they are."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def ramp() -> np.ndarray:
    """Stored values 0 to 4095 in even steps, 32 x 32."""
    return np.linspace(0, 4095, 32 * 32).round().astype(np.uint16).reshape(32, 32)


@pytest.fixture
def dicom_dataset() -> MakeDicom:
    return make_dataset


@pytest.fixture
def dicom_bytes() -> Callable[..., bytes]:
    """Bytes of a DICOM file around stored values; keywords as in `dicom_dataset`."""
    return lambda stored, **elements: to_bytes(make_dataset(stored, **elements))


@pytest.fixture
def dataset_bytes() -> Callable[[pydicom.Dataset], bytes]:
    return to_bytes


@pytest.fixture
def picture_bytes() -> Callable[..., bytes]:
    """Bytes of a PNG or JPEG with a textured picture; equal seeds give equal pictures."""

    def make(seed: int = 0, kind: str = "PNG", side: int = 32, **options: Any) -> bytes:
        pixels = np.random.default_rng(seed).integers(30, 220, size=(side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format=kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def whole_files() -> dict[str, bytes]:
    """One undamaged file of each format, 32 x 32."""
    texture = np.random.default_rng(5).integers(0, 4096, size=(32, 32))
    dataset = make_dataset(texture, Manufacturer="Aurora", KVP=120, WindowCenter=2000, WindowWidth=4000)
    files = {"DICOM": to_bytes(dataset)}
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray((texture // 16).astype(np.uint8)).save(buffer, format=kind)
        files[kind] = buffer.getvalue()
    return files


@pytest.fixture
def source_of(tmp_path: Path) -> Callable[..., ImageSource]:
    """An ImageSource for bytes, written to a file; `fields` override."""

    def make(data: bytes, position: int = 1, name: str = "image", **fields: Any) -> ImageSource:
        path = tmp_path / f"{name}-{position}.bin"
        path.write_bytes(data)
        given: dict[str, Any] = {"site": "north", "subject": "s1", "label": None} | fields
        return ImageSource(position=position, path=path, **given)

    return make
