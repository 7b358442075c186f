"""What an intake held back, once per file and reason, and the batch by which its picture was stored after all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from continual.domain.samples import QuarantineEntry
from continual.domain.texts import MOST_CHARACTERS
from registry.database import chunks, next_number
from registry.plain_json import check_text
from registry.tables import BatchRow, QuarantineRow


@dataclass(frozen=True, slots=True)
class Refusal:
    """One input that an intake held back, why and when. `settled` says that a later intake stored its picture.

    `position` is its row in the manifest or place in name order, from 1.
    """

    site: str
    position: int
    file_digest: str
    reason: str
    batch: int
    refused_at: datetime
    settled: bool


def entry_key(entry: QuarantineEntry) -> tuple[str, str]:
    """What tells two entries of a site apart: file digest and reason, the latter cut to what an index can hold."""
    reason = check_text(entry.reason[:MOST_CHARACTERS], "quarantine reason")
    return check_text(entry.file_digest, "file digest"), reason


def not_yet_held(session: Session, site: str, offered: Sequence[QuarantineEntry]) -> list[QuarantineEntry]:
    """Of the entries those that the site's quarantine does not hold, once each."""
    entries: dict[tuple[str, str], QuarantineEntry] = {}
    for entry in offered:
        entries.setdefault(entry_key(entry), entry)
    stored: set[tuple[str, str]] = set()
    for keys in chunks(sorted({digest for digest, _ in entries})):
        query = select(QuarantineRow.file_digest, QuarantineRow.reason).where(QuarantineRow.site == site)
        stored.update(session.execute(query.where(QuarantineRow.file_digest.in_(keys))).tuples())
    return [entry for key, entry in entries.items() if key not in stored]


def hold_back(session: Session, entries: Sequence[QuarantineEntry], stored: Collection[str], batch: int) -> None:
    """Store entries that the quarantine does not hold yet; those of `stored` pictures are marked from the first."""
    if entries:
        first = next_number(session, QuarantineRow.id)
        rows = [
            _row(entry, first + place, batch) | {"stored_in": batch if entry.file_digest in stored else None}
            for place, entry in enumerate(entries)
        ]
        session.execute(insert(QuarantineRow), rows)


def no_longer_held(session: Session, site: str, stored: Collection[str]) -> list[int]:
    """Numbers of the site's entries, not marked yet, whose file or picture is among the `stored` digests."""
    query = select(QuarantineRow.id).where(QuarantineRow.site == site, QuarantineRow.stored_in.is_(None))
    found: list[int] = []
    for keys in chunks(sorted(stored)):
        found.extend(session.scalars(query.where(QuarantineRow.file_digest.in_(keys))))
    return found


def mark_stored(session: Session, entries: Sequence[int], batch: int) -> None:
    """Write down that the pictures of these entries are stored since a batch."""
    for numbers in chunks(entries):
        session.execute(update(QuarantineRow).where(QuarantineRow.id.in_(numbers)).values(stored_in=batch))


def drop_entries(session: Session, entries: Sequence[int]) -> None:
    """Delete entries by number; those of stored pictures leave their batch's count, which they no longer weighed in."""
    for numbers in chunks(entries):
        gone = QuarantineRow.id.in_(numbers)
        marked = select(QuarantineRow.batch, func.count()).where(gone, QuarantineRow.stored_in.is_not(None))
        for batch, count in session.execute(marked.group_by(QuarantineRow.batch)).tuples().all():
            lowered = update(BatchRow).where(BatchRow.number == batch)
            session.execute(lowered.values(quarantined=BatchRow.quarantined - count))
        session.execute(delete(QuarantineRow).where(gone))


def stored_since(session: Session, site: str | None) -> dict[int, int]:
    """Of each batch's entries, how many are of pictures that are stored."""
    query = select(QuarantineRow.batch, func.count()).where(QuarantineRow.stored_in.is_not(None))
    if site is not None:
        query = query.where(QuarantineRow.site == site)
    return dict(session.execute(query.group_by(QuarantineRow.batch)).tuples().all())


def refusals(session: Session, site: str | None) -> list[Refusal]:
    """All entries, oldest first."""
    query = select(QuarantineRow, BatchRow.created_at).join(BatchRow, BatchRow.number == QuarantineRow.batch)
    if site is not None:
        query = query.where(QuarantineRow.site == site)
    return [
        Refusal(row.site, row.position, row.file_digest, row.reason, row.batch, at, (row.stored_in or 0) > row.batch)
        for row, at in session.execute(query.order_by(QuarantineRow.id)).tuples()
    ]


def count_held_back(session: Session) -> dict[str, int]:
    """By site the files whose picture is not stored; one with two reasons counts once."""
    query = select(QuarantineRow.site, func.count(QuarantineRow.file_digest.distinct()))
    query = query.where(QuarantineRow.stored_in.is_(None)).group_by(QuarantineRow.site)
    return dict(session.execute(query).tuples().all())


def _row(entry: QuarantineEntry, number: int, batch: int) -> dict[str, Any]:
    digest, reason = entry_key(entry)
    return {
        "id": number,
        "site": entry.site,
        "position": entry.position,
        "file_digest": digest,
        "reason": reason,
        "batch": batch,
    }
