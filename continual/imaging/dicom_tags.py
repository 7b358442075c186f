"""The acquisition tags that are kept of a DICOM header, by allow-list; knows nothing of pixels.

Names, identifiers, dates, UIDs, descriptions and comments are not on the list, so they cannot leave. The texts on it
are free text to the standard all the same: one that repeats a word of the patient's name or identifier is dropped.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydicom.uid import UID, UID_dictionary

TEXT_TAGS: Mapping[str, str] = {
    "Modality": "modality",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model_name",
    "ConvolutionKernel": "convolution_kernel",
    "PhotometricInterpretation": "photometric_interpretation",
    "SoftwareVersions": "software_versions",
    "BodyPartExamined": "body_part_examined",
    "ViewPosition": "view_position",
    "BurnedInAnnotation": "burned_in_annotation",
}
NUMBER_TAGS: Mapping[str, str] = {
    "KVP": "kvp_kv",
    "ExposureTime": "exposure_time_ms",
    "XRayTubeCurrent": "xray_tube_current_ma",
    "Exposure": "exposure_mas",
    "MagneticFieldStrength": "magnetic_field_strength_t",
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "FlipAngle": "flip_angle_deg",
    "SliceThickness": "slice_thickness_mm",
    "SpacingBetweenSlices": "spacing_between_slices_mm",
    "BitsStored": "bits_stored",
    "Rows": "rows",
    "Columns": "columns",
}
SPACING_TAGS: Mapping[str, str] = {"PixelSpacing": "pixel_spacing", "ImagerPixelSpacing": "imager_pixel_spacing"}
MAX_TEXT = 64
"""Longest text value kept, in characters."""

_FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
_MONTH_KEYWORDS = ("AcquisitionDateTime", "AcquisitionDate", "ContentDate", "StudyDate")
_IDENTIFYING_KEYWORDS = ("PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "PatientBirthName")
_SHORTEST_NAME = 3


class HeaderView:
    """Values of a dataset as one frame sees them: an enhanced object keeps some in its functional groups.

    A value that is absent, blank or malformed reads as None: one bad optional tag does not cost the image.
    """

    __slots__ = ("_levels",)

    def __init__(self, dataset: Any, frame: int) -> None:
        groups = [
            group
            for owner, at in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0))
            for group in _functional_groups(dataset, owner, at)
        ]
        self._levels = [*groups, dataset]

    def value(self, keyword: str) -> Any:
        """The raw value from the innermost level that has it, None when there is none."""
        for level in self._levels:
            value = _value(level, keyword)
            if value is not None:
                return value
        return None

    def text(self, keyword: str) -> str | None:
        """Printable text on one line; several values are joined by a slash."""
        value = self.value(keyword)
        if value is None:
            return None
        several = value if _is_multiple(value) else [value]
        line = " / ".join(str(each) for each in several)
        return " ".join("".join(c if c.isprintable() else " " for c in line).split()) or None

    def numbers(self, keyword: str) -> list[float]:
        """The finite numbers of a value; none when any of it is not a number."""
        value = self.value(keyword)
        if value is None:
            return []
        try:
            found = [float(each) for each in (value if _is_multiple(value) else [value])]
        except (TypeError, ValueError, OverflowError):
            return []
        return found if all(map(math.isfinite, found)) else []

    def number(self, keyword: str) -> float | None:
        """The first number of a value."""
        return next(iter(self.numbers(keyword)), None)


def acquisition_tags(view: HeaderView, mapping: str, syntax: str) -> dict[str, str | float]:
    """Allow-listed tags, snake case with units.

    `grey_mapping` says how stored values became grey levels, `transfer_syntax` how they were packed.
    """
    forbidden = _patient_words(view)
    tags: dict[str, str | float] = {"format": "DICOM", "grey_mapping": mapping, "transfer_syntax": syntax}
    for keyword, name in TEXT_TAGS.items():
        text = view.text(keyword)
        if text is not None and not _words(text) & forbidden:
            tags[name] = text[:MAX_TEXT].strip()
    for keyword, name in NUMBER_TAGS.items():
        number = view.number(keyword)
        if number is not None:
            tags[name] = number
    for keyword, name in SPACING_TAGS.items():
        spacing = view.numbers(keyword)
        if len(spacing) == 2:
            tags[f"{name}_row_mm"], tags[f"{name}_column_mm"] = spacing
    return tags


def transfer_syntax_name(uid: str | None) -> str:
    """The standard's name of a transfer syntax; a UID outside it is not told: it could carry anything."""
    return UID(uid).name if uid in UID_dictionary else "unknown"


def acquired_month(view: HeaderView) -> datetime | None:
    """First day of the month of acquisition (else content, else study), UTC.

    Months place an image in a window of monitoring. A full date is an identifier (HIPAA, 45 CFR 164.514); so is a month
    under its safe harbour, hence stores built from this are limited data sets, not public ones.
    """
    for keyword in _MONTH_KEYWORDS:
        match = re.match(r"((?:19|20)\d\d)[.-]?(0[1-9]|1[0-2])", view.text(keyword) or "")
        if match:
            return datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
    return None


def _functional_groups(dataset: Any, owner: str, at: int) -> list[Any]:
    items = _value(dataset, owner)
    if items is None or not 0 <= at < len(items):
        return []
    found = (_value(items[at], group) for group in _FUNCTIONAL_GROUPS)
    return [group[0] for group in found if group]


def _value(dataset: Any, keyword: str) -> Any:
    try:
        value = dataset.get(keyword)
    # pydicom converts on access, and a malformed value can raise nearly anything; it reads as absent.
    except Exception:  # noqa: BLE001
        return None
    return None if value is None or value == "" else value


def _is_multiple(value: Any) -> bool:
    # A PersonName iterates over its letters, and is no Sequence.
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _words(text: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", text.casefold()) if len(word) >= _SHORTEST_NAME}


def _patient_words(view: HeaderView) -> set[str]:
    return {word for keyword in _IDENTIFYING_KEYWORDS for word in _words(view.text(keyword) or "")}
