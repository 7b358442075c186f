"""A table of labels that come late, and the digest of a picture's content; knows nothing of what was predicted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from continual.domain.digests import sha256_pixels, sha256_volume
from continual.domain.errors import IntakeError, ManifestError
from continual.domain.texts import MOST_CHARACTERS, unstorable
from continual.imaging.cleaning import read_file
from continual.imaging.decoding import decode_image
from continual.imaging.sources import check_site_name, read_table, require_columns
from continual.imaging.volumes import decode_volume, is_volume

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A label for a picture's content; `position` is its row in the table, from 1. `labelled_at` is aware."""

    position: int
    digest: str
    label: str
    site: str | None = None
    labelled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FaultyLabelRow:
    """A row that cannot be used, and why: a full sentence without file names."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class LabelList:
    """What a table of labels holds, in order of position."""

    rows: tuple[LabelRow, ...]
    faults: tuple[FaultyLabelRow, ...]


def read_label_manifest(path: Path) -> LabelList:
    """Rows of a CSV with `digest,label` or `path,label` and, optionally, `site,labelled_at`.

    A `path` is relative to the table; its image is read for the digest of its content alone. A faulty row becomes a
    fault and the others go on. Raises ManifestError when the table as a whole cannot be used.
    """
    where = f"label manifest {path.name!r}"
    header, cells = read_table(path, "label manifest")
    require_columns(header, ["label"], where)
    if "digest" not in header and "path" not in header:
        raise ManifestError(f"{where}: columns 'digest' and 'path' are missing; name each picture by one of them")
    rows, faults = [], []
    for position, row in enumerate(cells, start=1):
        try:
            rows.append(_row(row, position, path.parent))
        except IntakeError as error:
            faults.append(FaultyLabelRow(position, str(error)))
    return LabelList(tuple(rows), tuple(faults))


def content_digest(data: bytes) -> str:
    """The digest that an image file's content has once it is taken in: of its pixels, of a volume values and spacing.

    Raises UnreadableImageError for what is none.
    """
    if is_volume(data):
        volume = decode_volume(data)
        return sha256_volume(volume.values, volume.spacing_mm)
    return sha256_pixels(decode_image(data).pixels)


def _row(row: Mapping[str, str], position: int, folder: Path) -> LabelRow:
    label, site = row["label"], row.get("site", "")
    if not 1 <= len(label) <= MOST_CHARACTERS or unstorable(label):
        raise ManifestError(
            f"the label has {len(label)} characters, must have 1 to {MOST_CHARACTERS} that a database can hold; "
            "correct it"
        )
    if site:
        check_site_name(site, "the row")
    return LabelRow(position, _digest(row, folder), label, site or None, _moment(row.get("labelled_at", "")))


def _digest(row: Mapping[str, str], folder: Path) -> str:
    given, path = row.get("digest", "").lower(), row.get("path", "")
    if given and not _DIGEST.fullmatch(given):
        raise ManifestError(f"the digest has {len(given)} characters, must be 64 of 0-9 and a-f; copy it whole")
    if not path:
        if not given:
            raise ManifestError("the row names no picture; fill in the column 'digest' or 'path'")
        return given
    found = content_digest(read_file(folder / path, "file"))
    if given and given != found:
        raise ManifestError("digest and path are of two pictures; keep the right one")
    return found


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ManifestError(
            "labelled_at is not an ISO 8601 time with a zone; write it like 2026-03-01T12:00+01:00, or leave it blank"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ManifestError("labelled_at lies beyond any calendar; write it like 2026-03-01T12:00+01:00") from None
