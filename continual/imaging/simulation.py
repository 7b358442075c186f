"""Three simulated hospitals as real DICOM files, for the demonstration and for tests; knows nothing of their use.

Each hospital has a scanner of its own, so that a model trained on one falls on the others. The headers name patients
who do not exist, as real headers would, so that de-identification has something to remove; every file says SIMULATED.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.errors import SettingsError
from continual.imaging.simulated_anatomy import Anatomy, Physics, Picture, draw_anatomy, expose

FINDINGS = ("no_finding", "nodule")
"""The two labels; about half the subjects of a site have a nodule."""

_BITS_STORED = 12
_FAMILY_NAMES = ("Abara", "Brandvold", "Castellan", "Dimitrov", "Eskelin", "Fontaine", "Grabowska", "Halvorsen")
_GIVEN_NAMES = ("Amalia", "Bastian", "Celeste", "Dragan", "Elspeth", "Florian", "Ginevra", "Henrike", "Ivar", "Jolanta")


@dataclass(frozen=True, slots=True)
class Scanner:
    """One hospital's scanner: its physics and what its headers say."""

    physics: Physics
    manufacturer: str
    model: str
    software: str
    kvp_kv: int
    exposure_time_ms: int
    photometric: str
    detector_spacing_mm: float


SCANNERS: Mapping[str, Scanner] = {
    "northgate": Scanner(
        Physics(gain=0.85, offset=0.05, gamma=1.0, blur_px=0.0, noise=0.02, nodule_core=0.35, nodule_rim=0.0),
        "Aurora Imaging", "AX-200", "4.2.1", 120, 8, "MONOCHROME2", 0.40,
    ),
    "riverside": Scanner(
        Physics(gain=0.42, offset=0.42, gamma=1.0, blur_px=1.0, noise=0.035, nodule_core=0.35, nodule_rim=0.0),
        "Meridian Medical", "Clarity 7", "MM 11.0", 90, 16, "MONOCHROME2", 0.55,
    ),
    "hillcrest": Scanner(
        Physics(gain=0.95, offset=0.0, gamma=1.5, blur_px=0.4, noise=0.02, nodule_core=0.0, nodule_rim=0.50),
        "Sable Radiography", "SR Pro", "2024b", 105, 12, "MONOCHROME1", 0.40,
    ),
}  # fmt: skip
"""hillcrest is dark, inverts stored values and shows a nodule as a ring. riverside is noisy, blurred and flat: a nodule
there is as faint as a vessel at northgate, so who learns riverside alone reads nodules into northgate's vessels."""


@dataclass(frozen=True, slots=True)
class _Exposure:
    """One image to write: the how-manieth of its site (from 1) and of its subject (from 1)."""

    site: str
    number: int
    subject: int
    view: int
    finding: str
    picture: Picture


def write_simulated_hospitals(
    folder: Path, seed: int, per_site: int | Mapping[str, int], progress: Callable[[int], None] | None = None
) -> Path:
    """Writes `per_site` images for each of three hospitals, or as many as it names for each, and returns `labels.csv`.

    Files are `folder/<site>/IM00001.dcm` onwards (Digital X-Ray, 64 x 64, 12 of 16 bits, Explicit VR Little Endian);
    the table has the columns sop_instance_uid, site and label and is written last. Equal seeds give equal files.
    `progress` is called with 1 after each file. Raises SettingsError on a count below 1, a site without a count, a
    negative seed, or a folder with other DICOM files in it.
    """
    counts = dict.fromkeys(SCANNERS, per_site) if isinstance(per_site, int) else dict(per_site)
    if set(counts) != set(SCANNERS):
        raise SettingsError(f"images for {', '.join(counts)}: give a number for each of {', '.join(SCANNERS)}")
    fewest = min(counts.values())
    if fewest < 1 or seed < 0:
        raise SettingsError(f"{fewest} images per site from seed {seed}: give at least 1 image and a seed of 0 or more")
    _refuse_foreign_files(folder, counts)
    lines: list[tuple[str, str, str]] = []
    for at, (site, scanner) in enumerate(SCANNERS.items()):
        (folder / site).mkdir(parents=True, exist_ok=True)
        for exposure in _exposures(site, scanner, np.random.default_rng([seed, at]), counts[site]):
            dataset = _dataset(exposure, scanner, seed)
            dataset.save_as(folder / site / _file_name(exposure.number), enforce_file_format=True)
            lines.append((str(dataset.SOPInstanceUID), site, exposure.finding))
            if progress is not None:
                progress(1)
    return _write_labels(folder / "labels.csv", lines)


def _refuse_foreign_files(folder: Path, counts: Mapping[str, int]) -> None:
    for site, count in counts.items():
        expected = {_file_name(number) for number in range(1, count + 1)}
        foreign = sum(path.name not in expected for path in (folder / site).glob("*") if path.is_file())
        if foreign:
            raise SettingsError(
                f"the folder of {site} holds {foreign} files that {count} images per site would not overwrite; "
                "choose an empty folder, or the same number as before"
            )


def _file_name(number: int) -> str:
    return f"IM{number:05d}.dcm"


def _exposures(site: str, scanner: Scanner, rng: np.random.Generator, count: int) -> Iterator[_Exposure]:
    """Images in order of subject: one or two each, 1.5 on average; findings alternate over a random start."""
    number, subject, first = 0, 0, int(rng.integers(2))
    while number < count:
        finding = FINDINGS[(first + subject) % 2]
        anatomy: Anatomy = draw_anatomy(rng, with_nodule=finding == "nodule")
        subject += 1
        for view in range(1, 1 + min(int(rng.integers(1, 3)), count - number)):
            number += 1
            yield _Exposure(site, number, subject, view, finding, expose(anatomy, scanner.physics, rng))


def _dataset(exposure: _Exposure, scanner: Scanner, seed: int) -> Any:
    import pydicom
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    def uid(*what: object) -> Any:
        return generate_uid(entropy_srcs=["continual simulation", *map(str, (seed, exposure.site, *what))])

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid("image", exposure.number)
    dataset.StudyInstanceUID = uid("study", exposure.subject)
    dataset.SeriesInstanceUID = uid("series", exposure.subject)
    dataset.InstanceNumber = exposure.view
    dataset.ImageComments = "SIMULATED"
    _describe_patient(dataset, exposure, seed)
    _describe_scanner(dataset, scanner)
    _describe_pixels(dataset, exposure.picture, scanner.photometric)
    return dataset


def _describe_patient(dataset: Any, exposure: _Exposure, seed: int) -> None:
    """Identifiers of a person who does not exist, drawn from the subject's number."""
    rng = np.random.default_rng([seed, exposure.subject, *exposure.site.encode()])
    dataset.PatientName = f"{rng.choice(_FAMILY_NAMES)}^{rng.choice(_GIVEN_NAMES)}"
    dataset.PatientID = f"{exposure.site[:2].upper()}-{exposure.subject:06d}"
    dataset.PatientBirthDate = f"{rng.integers(1935, 2005)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    dataset.PatientSex = str(rng.choice(["F", "M"]))
    dataset.InstitutionName = f"{exposure.site.capitalize()} Hospital (simulated)"
    dataset.ReferringPhysicianName = f"{rng.choice(_FAMILY_NAMES)}^{rng.choice(_GIVEN_NAMES)}"
    dataset.AccessionNumber = f"A{rng.integers(10**7):07d}"
    dataset.StudyID = str(exposure.subject)
    date = f"2025{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    dataset.StudyDate = dataset.ContentDate = dataset.AcquisitionDate = date
    dataset.StudyTime = dataset.ContentTime = f"{rng.integers(7, 19):02d}{rng.integers(60):02d}00"


def _describe_scanner(dataset: Any, scanner: Scanner) -> None:
    dataset.Modality = "DX"
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = scanner.model
    dataset.SoftwareVersions = scanner.software
    dataset.KVP = scanner.kvp_kv
    dataset.ExposureTime = scanner.exposure_time_ms
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.ImagerPixelSpacing = [scanner.detector_spacing_mm, scanner.detector_spacing_mm]
    dataset.BurnedInAnnotation = "NO"


def _describe_pixels(dataset: Any, picture: Picture, photometric: str) -> None:
    highest = 2**_BITS_STORED - 1
    stored = np.rint(picture * highest).astype("<u2")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, _BITS_STORED, _BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "US"
    dataset.PixelData = (highest - stored if photometric == "MONOCHROME1" else stored).astype("<u2").tobytes()


def _write_labels(path: Path, lines: list[tuple[str, str, str]]) -> Path:
    """Written beside its place and moved there: a killed run leaves no half table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sop_instance_uid", "site", "label"))
    writer.writerows(lines)
    unfinished = path.with_suffix(".csv.unfinished")
    unfinished.write_text(text.getvalue(), encoding="utf-8")
    return unfinished.replace(path)
