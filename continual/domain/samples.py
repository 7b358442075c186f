"""Samples, subjects, splits and the outcome of an intake; knows nothing of files or databases."""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from continual.domain.adapters import Task

PSEUDONYM_CHARACTERS = 16
IGNORED = 255
"""Class number of a mask's pixels outside the field of view: nobody learns from them, nobody is scored on them."""
MOST_MASK_CLASSES = 254
"""Largest class number of a mask; 0 is the background."""


class Split(StrEnum):
    """Which side of every evaluation a subject stands on, assigned once and never changed."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SPLIT_SHARES: Mapping[Split, float] = {Split.TRAIN: 0.60, Split.VALIDATION: 0.15, Split.TEST: 0.25}
"""Target share of each label's subjects on each side; images are evened out after that."""


@dataclass(frozen=True, slots=True)
class CleanImage:
    """One standardised, de-identified image as it leaves `continual.imaging`, before it is stored.

    `data` is a lossless 8-bit PNG without metadata; `digest` names its pixels (`sha256_pixels`), so one picture under
    two file names has one digest. `tags` holds acquisition tags only (manufacturer, kVp, spacing), strings or numbers;
    `pixel_statistics` holds finite numbers in the units of `continual.imaging.pixel_statistics`. `mask_data` is a mask
    of the same height and width: an 8-bit single-channel PNG without metadata that holds class numbers, 0 for the
    background and `IGNORED` outside the field of view.

    Of a volume, which has `depth` and `spacing_mm`, both are NIfTI files of values and spacing alone, in RAS+ axes, of
    which `width`, `height` and `depth` count the voxels; `digest` names values and spacing (`sha256_volume`), and the
    statistics are those of `continual.imaging.volume_measurements`.
    """

    digest: str
    site: str
    subject: str
    label: str | None
    data: bytes
    width: int
    height: int
    tags: Mapping[str, str | float] = field(default_factory=dict)
    pixel_statistics: Mapping[str, float] = field(default_factory=dict)
    acquired_at: datetime | None = None
    split: Split | None = None
    """A split the manifest demands; None lets the registry assign one."""
    mask_data: bytes | None = None
    depth: int | None = None
    spacing_mm: tuple[float, float, float] | None = None
    file_digest: str | None = None
    """SHA-256 of the file that it was read from: what a quarantine entry knew it by, had it been held back before."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One stored image, picture or volume, with its site, subject, acquisition and, perhaps later, label.

    `subject` is a pseudonym, scoped by site: the same name in two sites is two people. `artifact` is the SHA-256
    address of what is stored, `mask` that of the stored mask, if one has come. `batch` numbers the intake that brought
    the image.
    """

    digest: str
    site: str
    subject: str
    label: str | None
    split: Split
    artifact: str
    batch: int
    tags: Mapping[str, str | float] = field(default_factory=dict)
    pixel_statistics: Mapping[str, float] = field(default_factory=dict)
    acquired_at: datetime | None = None
    mask: str | None = None
    spacing_mm: tuple[float, float, float] | None = None
    """Of a volume, the distance between neighbouring voxels along x, y and z; None for a picture."""

    @property
    def is_volume(self) -> bool:
        """Whether what is stored is a volume (NIfTI), not a picture (PNG); its mask is of the same kind."""
        return self.spacing_mm is not None

    def labelled_for(self, task: Task) -> bool:
        """Whether it can be learnt from: a label for classification, a mask for segmentation."""
        return (self.mask if task is Task.SEGMENTATION else self.label) is not None


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One input that was held back. `position` is its row in the manifest or place in name order, from 1.

    File names can carry patient names, so a position and the file's digest stand for it; `reason` is a full sentence.
    """

    site: str
    position: int
    file_digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class IntakeSummary:
    """What one intake did to one site; `new + duplicates + quarantined` is what was offered.

    `relabelled` counts the stored images that got a label or a mask they had not, or another mask.
    """

    site: str
    batch: int | None
    new: int
    duplicates: int
    quarantined: int
    relabelled: int = 0


def pseudonym(key: bytes, site: str, subject: str) -> str:
    """Keyed one-way name of a subject within a site: HMAC-SHA256 (RFC 2104), cut to 64 bits in hexadecimal.

    Scoped by site, so the same name in two hospitals gives two pseudonyms.
    """
    message = f"{len(site)}:{site}:{subject}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:PSEUDONYM_CHARACTERS]


def label_counts(samples: Iterable[Sample]) -> dict[str, int]:
    """Number of samples per label, unlabelled ones left out, in order of label."""
    counts = Counter(sample.label for sample in samples if sample.label is not None)
    return dict(sorted(counts.items()))
