"""Stored values of a grey DICOM frame to 8-bit grey levels; knows nothing of colour, tags or files.

Modality transformation, then VOI transformation, as PS3.3 C.11 orders them. A file that states its VOI LUT or window
gets that. One that does not is mapped by the fixed range of its unit, so that a change of a scanner's gain stays
visible to drift detection: CT in Hounsfield units by -1024 to 3071, up to 8 bits and X-ray detectors by all the values
they can store. Units that are arbitrary from image to image (MR, PET, unknown) have no such range and are mapped by the
image's own 0.5th to 99.5th percentile.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from pydicom.pixels.processing import apply_modality_lut

from continual.imaging.dicom_tags import HeaderView

DETECTOR_MODALITIES = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "XA", "US"})
"""Modalities whose stored range belongs to the device, not to the single image."""
HOUNSFIELD_RANGE = (-1024.0, 3071.0)
"""What 12 bits of CT can say, in Hounsfield units."""
PERCENTILES = (0.5, 99.5)

_Values = Float[np.ndarray, "height width"]
_Levels = UInt8[np.ndarray, "height width"]


def to_grey_levels(stored: np.ndarray, dataset: Any, view: HeaderView) -> tuple[_Levels, str]:
    """Grey levels before any MONOCHROME1 inversion, and how they were mapped.

    That is one of "voi_lut", "window", "hounsfield", "stored_range", "percentile".
    """
    values = _modality_values(stored, dataset, view)
    lut = view.value("VOILUTSequence")
    if lut:
        return _through_lut(values, lut[0], dataset.original_encoding[1] is False), "voi_lut"
    window = _window(view)
    if window is not None:
        return _through_window(values, *window, function=view.text("VOILUTFunction") or "LINEAR"), "window"
    low, high, mapping = _range_without_window(values, dataset, view)
    return _scale(values, low, high), mapping


def _modality_values(stored: np.ndarray, dataset: Any, view: HeaderView) -> _Values:
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    slope, intercept = _rescale(view)
    values = np.nan_to_num(stored.astype(np.float32))
    if (slope, intercept) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(intercept)
    return values


def _rescale(view: HeaderView) -> tuple[float, float]:
    slope, intercept = view.number("RescaleSlope"), view.number("RescaleIntercept")
    return slope if slope else 1.0, intercept if intercept is not None else 0.0


def _window(view: HeaderView) -> tuple[float, float] | None:
    """Centre and width of the first view; None when absent or of no width."""
    centre, width = view.number("WindowCenter"), view.number("WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    return centre, width


def _through_window(values: _Values, centre: float, width: float, function: str) -> _Levels:
    """PS3.3 C.11.2.1.2 (linear) and C.11.2.1.3 (sigmoid, linear exact)."""
    if function.upper() == "SIGMOID":
        exponent = np.clip(-4.0 * (values - centre) / width, -80.0, 80.0)
        return _scale(1.0 / (1.0 + np.exp(exponent)), 0.0, 1.0)
    if function.upper() == "LINEAR_EXACT":
        return _scale(values, centre - width / 2, centre + width / 2)
    low = centre - 0.5 - (width - 1) / 2
    return _scale(values, low, low + width - 1)


def _through_lut(values: _Values, item: Any, is_big_endian: bool) -> _Levels:
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    # Explicit VR OW leaves bytes, US leaves numbers; 8-bit tables are stored in words too (PS3.3 C.11.2.1.1).
    words = ">u2" if is_big_endian else "<u2"
    table = np.frombuffer(data, dtype=words) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
    table = table[:entries].astype(np.float32)
    # A first value above 32767 is a negative one read as unsigned when the stored values are signed.
    first = first - 2**16 if first > 2**15 - 1 and float(values.min()) < 0 else first
    index = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)
    return _scale(table[index], 0.0, 2.0**bits - 1.0)


def _range_without_window(values: _Values, dataset: Any, view: HeaderView) -> tuple[float, float, str]:
    modality = view.text("Modality") or ""
    bits = view.number("BitsStored")
    if modality == "CT" and view.number("RescaleIntercept") is not None:
        return *HOUNSFIELD_RANGE, "hounsfield"
    if bits is not None and (bits <= 8 or modality in DETECTOR_MODALITIES) and "ModalityLUTSequence" not in dataset:
        signed = view.number("PixelRepresentation") == 1
        span = 2.0**bits
        ends = np.array([-span / 2, span / 2 - 1] if signed else [0.0, span - 1])
        slope, intercept = _rescale(view)
        low, high = sorted(ends * slope + intercept)
        return float(low), float(high), "stored_range"
    low, high = (float(end) for end in np.percentile(values, PERCENTILES))
    return (low, high, "percentile") if high > low else (float(values.min()), float(values.max()), "percentile")


def _scale(values: _Values, low: float, high: float) -> _Levels:
    """Linear from low to high onto 0 to 255, clipped; a range of no width splits at its value."""
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    levels: _Levels = np.rint(np.clip((values - low) * (255.0 / (high - low)), 0, 255)).astype(np.uint8)
    return levels
