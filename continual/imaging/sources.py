"""What an intake is going to read, and what it already knows it cannot; knows nothing of how an image is decoded.

Also the rules that a manifest and a DICOM folder share: legal site names, the choice of sites, digests of files.
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from continual.domain.digests import sha256_bytes
from continual.domain.errors import ManifestError
from continual.domain.samples import QuarantineEntry, Split

_SITE_NAME = re.compile(r"\w[\w .-]{0,63}")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One file to read. `position` is its row in the manifest or its place in name order, from 1.

    `subject` is the name the hospital uses (None: take the DICOM PatientID); it never leaves this room. `acquired_at`
    is aware. `label` None means not labelled yet. `mask` holds a class number for every pixel and `field_of_view` says
    which of them count (other than 0); it is read beside a mask only.
    """

    position: int
    path: Path
    site: str
    subject: str | None
    label: str | None
    mask: Path | None = None
    field_of_view: Path | None = None
    acquired_at: datetime | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class IntakeList:
    """The files to read in order of position, the rows already held back, and the sites in order."""

    sources: tuple[ImageSource, ...]
    problems: tuple[QuarantineEntry, ...]
    sites: tuple[str, ...]


def check_site_name(site: str, where: str) -> str:
    """The name itself; ManifestError when it is blank or could not stand in an address (slash, colon, 65 letters).

    The message does not repeat it: a folder sorted by patient has names here.
    """
    if not _SITE_NAME.fullmatch(site):
        raise ManifestError(
            f"{where}: the site is {'blank' if not site else 'not a name'}: it needs 1 to 64 letters, digits, spaces, "
            "dots, dashes or underscores; name the hospital the image comes from"
        )
    return site


def choose_sites(present: Sequence[str], asked: Sequence[str], where: str) -> tuple[str, ...]:
    """The sites asked for in that order, or all present in order of appearance when none is asked for.

    Raises ManifestError for a site that is not there.
    """
    known = tuple(dict.fromkeys(present))
    missing = [site for site in dict.fromkeys(asked) if site not in known]
    if missing:
        raise ManifestError(
            f"{where}: no image of site {', '.join(map(repr, missing))}; sites there: {', '.join(known) or 'none'}; "
            "correct the name or leave the sites out to take them all"
        )
    return tuple(dict.fromkeys(asked)) or known


def file_digest(path: Path, position: int) -> str:
    """SHA-256 of the file's bytes; of the position's digits when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return sha256_bytes(str(position).encode())


def read_table(path: Path, what: str) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Header and rows of a comma-separated UTF-8 table, cells stripped, absent cells blank; at least one row.

    Raises ManifestError when there is no such table. Only the file's own name is told: folders can name patients.
    """
    name = f"{what} {path.name!r}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True) if any(map(str.strip, row))]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ManifestError(f"{name} cannot be read ({reason}); give the path of a CSV file") from None
    except (UnicodeDecodeError, csv.Error):
        raise ManifestError(f"{name} is not a CSV file in UTF-8; save it as comma-separated UTF-8 text") from None
    if not rows:
        raise ManifestError(f"{name} is empty; write a header line and one line per image")
    header = tuple(cell.lower() for cell in rows[0])
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise ManifestError(f"{name} has the column {twice[0]!r} more than once; keep one of them")
    if len(rows) == 1:
        raise ManifestError(f"{name} has a header and no rows; write one line per image")
    cells = [dict.fromkeys(header, "") | dict(zip(header, row, strict=False)) for row in rows[1:]]
    return header, cells


def require_columns(header: Sequence[str], needed: Sequence[str], where: str) -> None:
    """Raises ManifestError naming the columns that are missing and those that are there."""
    missing = [column for column in needed if column not in header]
    if missing:
        raise ManifestError(
            f"{where}: column {', '.join(map(repr, missing))} is missing; the header has: {', '.join(header)}; "
            "name the columns in the first line and separate them by commas"
        )
