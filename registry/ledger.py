"""The append-only, hash-chained record of who changed what, when; knows nothing of what the events mean.

Each entry's digest covers its content and the digest before it (Haber & Stornetta 1991), so no entry can be changed,
taken out or put in without breaking the chain. Entries are written in the transaction of the change they record.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, final

from sqlalchemy import select, true, update
from sqlalchemy.orm import Session

from continual.domain.adapters import LedgerEntry
from continual.domain.digests import sha256_json
from continual.domain.errors import LedgerError
from registry.database import Database
from registry.plain_json import plain
from registry.tables import LEDGER_LENGTH, CounterRow, LedgerRow

GENESIS = "0" * 64
"""What stands before the first entry."""


@final
class Ledger:
    """Reads and verifies the ledger; entries come only from the stores, with the change they record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: int = 0, limit: int = 100) -> list[LedgerEntry]:
        """Up to `limit` entries in order, from the position that follows `after`."""
        query = select(LedgerRow).where(LedgerRow.position > after).order_by(LedgerRow.position).limit(limit)
        with self._database.read() as session:
            return [_entry(row) for row in session.scalars(query)]

    def verify(self) -> int:
        """Recompute the whole chain; the number of entries. LedgerError names the first broken position."""
        # One statement sees one snapshot: what others append meanwhile stands on neither side of the comparison.
        query = select(CounterRow.value, LedgerRow).select_from(CounterRow).outerjoin(LedgerRow, true())
        query = query.where(CounterRow.name == LEDGER_LENGTH).order_by(LedgerRow.position)
        expected, verified, previous = -1, 0, GENESIS
        with self._database.read() as session:
            for length, row in session.execute(query.execution_options(yield_per=1000)).tuples():
                expected = length
                if row is not None:
                    verified += 1
                    previous = _checked(_entry(row), verified, previous)
        if verified != expected:
            raise LedgerError(
                f"ledger position {verified + 1} is broken: the ledger ends after {verified} entries and {expected} "
                "were written; restore the database from a backup"
            )
        return verified


def moment(session: Session) -> datetime:
    """The time of a change, in UTC: now, but never before the ledger's last entry, whatever this clock says."""
    last = session.scalar(select(LedgerRow.recorded_at).order_by(LedgerRow.position.desc()).limit(1))
    now = datetime.now(UTC)
    return now if last is None else max(now, last)


def append(session: Session, at: datetime, actor: str, event: str, payload: Mapping[str, Any]) -> None:
    """Add an entry to the chain inside the caller's write transaction, whose lock keeps the chain single."""
    last = session.scalar(select(LedgerRow).order_by(LedgerRow.position.desc()).limit(1))
    position = 1 if last is None else last.position + 1
    entry = LedgerEntry(
        position=position,
        recorded_at=at,
        actor=actor,
        event=event,
        payload=plain(payload, event),
        previous_digest=GENESIS if last is None else last.digest,
        digest="",
    )
    session.add(
        LedgerRow(
            position=position,
            recorded_at=at,
            actor=actor,
            event=event,
            payload=entry.payload,
            previous_digest=entry.previous_digest,
            digest=_digest(entry),
        )
    )
    session.execute(update(CounterRow).where(CounterRow.name == LEDGER_LENGTH).values(value=position))


def _digest(entry: LedgerEntry) -> str:
    return sha256_json(
        {
            "position": entry.position,
            "recorded_at": entry.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "actor": entry.actor,
            "event": entry.event,
            "payload": entry.payload,
            "previous_digest": entry.previous_digest,
        }
    )


def _checked(entry: LedgerEntry, position: int, previous: str) -> str:
    if entry.position != position:
        fault = f"the entry is missing, position {entry.position} follows"
    elif entry.previous_digest != previous:
        fault = "it does not continue the entry before it"
    elif entry.digest != _digest(entry):
        fault = "its content does not match its digest"
    else:
        return entry.digest
    raise LedgerError(f"ledger position {position} is broken: {fault}; restore the database from a backup")


def _entry(row: LedgerRow) -> LedgerEntry:
    return LedgerEntry(
        position=row.position,
        recorded_at=row.recorded_at,
        actor=row.actor,
        event=row.event,
        payload=row.payload,
        previous_digest=row.previous_digest,
        digest=row.digest,
    )
