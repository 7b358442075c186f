"""The manifest: a CSV table that names files, sites, subjects and labels; knows nothing of how an image is decoded.

A fault of the table stops the intake before anything is read; a fault of one row holds back that row.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from continual.domain.errors import IntakeError
from continual.domain.samples import QuarantineEntry, Split
from continual.imaging.sources import (
    ImageSource,
    IntakeList,
    check_site_name,
    choose_sites,
    file_digest,
    read_table,
    require_columns,
)

COLUMNS = ("path", "site", "label", "subject")
"""Columns that must be there, `label` only where there is no `mask`; `field_of_view`, `acquired_at` and `split` may be,
and any other is ignored."""


class _RowError(IntakeError):
    """One row cannot be used; its message becomes the reason of a quarantine entry."""


def read_manifest(path: Path, sites: Sequence[str] = (), known_labels: Collection[str] | None = None) -> IntakeList:
    """The images a manifest names, in row order; paths in it are relative to the manifest's own folder.

    `sites` keeps only those sites, in that order; a row's position stays its row in the file, from 1. With
    `known_labels`, a label outside them is held back. Raises ManifestError when the table as a whole cannot be used;
    a row with a missing file, no subject, a bad split, date or label becomes a problem and the others go on.
    """
    where = f"manifest {path.name!r}"
    header, rows = read_table(path, "manifest")
    require_columns(header, [name for name in COLUMNS if name != "label" or "mask" not in header], where)
    named = [check_site_name(row["site"], f"{where} row {at}") for at, row in enumerate(rows, start=1)]
    chosen = choose_sites(named, sites, where)
    sources: list[ImageSource] = []
    problems: list[QuarantineEntry] = []
    for position, row in enumerate(rows, start=1):
        if row["site"] not in chosen:
            continue
        try:
            sources.append(_source(row, position, path.parent, known_labels))
        except _RowError as error:
            problems.append(_held_back(path.parent / row["path"], row["site"], position, str(error)))
    kept, torn = _one_split_per_subject(sources)
    order = {site: at for at, site in enumerate(chosen)}
    return IntakeList(
        sources=tuple(sorted(kept, key=lambda source: (order[source.site], source.position))),
        problems=tuple(sorted(problems + torn, key=lambda entry: (order[entry.site], entry.position))),
        sites=chosen,
    )


def _source(row: Mapping[str, str], position: int, folder: Path, known_labels: Collection[str] | None) -> ImageSource:
    if not row["path"]:
        raise _RowError("the row names no file; fill in the column 'path'")
    if not _is_file(folder / row["path"]):
        raise _RowError("the file is missing; put it where the manifest says, relative to the manifest's folder")
    if not row["subject"]:
        raise _RowError("the row names no subject; fill in the column 'subject', the unit of every split")
    return ImageSource(
        position=position,
        path=folder / row["path"],
        site=row["site"],
        subject=row["subject"],
        label=_label(row.get("label", ""), known_labels),
        mask=_beside(row.get("mask", ""), folder, "mask"),
        field_of_view=_beside(row.get("field_of_view", ""), folder, "field of view"),
        acquired_at=_moment(row.get("acquired_at", "")),
        split=_split(row.get("split", "")),
    )


def _beside(text: str, folder: Path, what: str) -> Path | None:
    """The file that a row names for what belongs to its image; None for a blank cell."""
    if not text:
        return None
    if not _is_file(folder / text):
        raise _RowError(f"the {what}'s file is missing; put it where the manifest says, or leave the cell blank")
    return folder / text


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _label(text: str, known_labels: Collection[str] | None) -> str | None:
    if text and known_labels is not None and text not in known_labels:
        raise _RowError(
            f"label {text!r} was never seen by this adapter; known: {', '.join(sorted(known_labels)) or 'none'}; "
            "correct it, or allow new classes with --new-classes"
        )
    return text or None


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _RowError("acquired_at is not an ISO 8601 date; write it like 2026-03-01 or leave it blank") from None


def _split(text: str) -> Split | None:
    if not text:
        return None
    try:
        return Split(text.lower())
    except ValueError:
        raise _RowError(f"split {text!r} is unknown; write {', '.join(Split)} or leave it blank") from None


def _one_split_per_subject(sources: Sequence[ImageSource]) -> tuple[list[ImageSource], list[QuarantineEntry]]:
    """Sources whose subject has one split (spread over its blank cells), and entries for subjects torn in two."""
    stated: dict[tuple[str, str | None], set[Split]] = defaultdict(set)
    for source in sources:
        if source.split is not None:
            stated[source.site, source.subject].add(source.split)
    kept: list[ImageSource] = []
    torn: list[QuarantineEntry] = []
    for source in sources:
        splits = stated[source.site, source.subject]
        if len(splits) > 1:
            reason = f"its subject stands in {' and '.join(sorted(splits))}; give all rows of one subject one split"
            torn.append(_held_back(source.path, source.site, source.position, reason))
        else:
            kept.append(replace(source, split=next(iter(splits), None)))
    return kept, torn


def _held_back(path: Path, site: str, position: int, reason: str) -> QuarantineEntry:
    return QuarantineEntry(site, position, file_digest(path, position), reason)
