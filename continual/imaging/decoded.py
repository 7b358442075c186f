"""What decoding gives, whatever the format was."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

MAX_SIDE = 8192
"""Longest side in pixels that is decoded; a whole-slide scan must be cut into tiles first."""

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One image as 8-bit RGB, shape (height, width, 3), with its acquisition tags.

    `tags` hold names from an allow-list only. `subject` is the raw DICOM PatientID and `sop_instance_uid` the raw UID:
    the caller pseudonymises or drops them. `acquired_at` is cut to the month (first day, UTC): a full date identifies.
    `orientation` is the EXIF orientation that the pixels were turned upright from, 1 to 8; 1 is upright already.
    """

    pixels: NDArray[np.uint8]
    tags: dict[str, str | float] = field(default_factory=dict)
    subject: str | None = None
    acquired_at: datetime | None = None
    sop_instance_uid: str | None = None
    orientation: int = 1
