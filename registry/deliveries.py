"""The outbox: drift reports on their way outside, kept until they were taken or given up; knows no network.

Rows are written in the transaction that files the report, so a report and its deliveries are there or not together.
Who sends claims a row first: a claim hides it from other senders for a while, so a killed sender only delays it.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias, final

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from continual.domain.errors import NotFoundError
from registry.database import Database
from registry.plain_json import check_text
from registry.tables import DeliveryRow


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    """Not tried yet."""
    RETRYING = "retrying"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report on its way to one target. `id` is the same at every attempt; `next_attempt_at` is None at the end."""

    id: str
    report: int
    target: str
    state: DeliveryState
    queued_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    last_error: str | None


Deliveries: TypeAlias = list[Delivery]

_STATE = case(
    (DeliveryRow.delivered_at.is_not(None), DeliveryState.DELIVERED.value),
    (DeliveryRow.next_attempt_at.is_(None), DeliveryState.GIVEN_UP.value),
    (DeliveryRow.attempts == 0, DeliveryState.WAITING.value),
    else_=DeliveryState.RETRYING.value,
)


def queue(session: Session, report: int, targets: Sequence[str]) -> None:
    """Add a delivery of the report to each target inside the caller's write transaction; due at once."""
    # By the clock that senders read. The ledger's time may run ahead of it, once a clock was wrong.
    now = datetime.now(UTC)
    for target in dict.fromkeys(targets):
        session.add(
            DeliveryRow(
                id=str(uuid.uuid4()),
                report=report,
                target=check_text(target, "target"),
                queued_at=now,
                attempts=0,
                next_attempt_at=now,
                delivered_at=None,
                last_error=None,
            )
        )


@final
class DeliveryStore:
    """Deliveries by target and state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, target: str, now: datetime, lease: timedelta) -> Delivery | None:
        """The target's oldest due report, counted as attempted and due again after `lease`; None when none is due."""
        due = select(DeliveryRow).where(DeliveryRow.target == target, DeliveryRow.next_attempt_at <= now)
        due = due.order_by(DeliveryRow.report).limit(1)
        with self._database.read() as session:
            if session.scalar(due) is None:
                return None  # most looks find nothing due, and need not wait for other writers
        with self._database.write() as session:
            row = session.scalar(due)
            if row is None:
                return None
            row.attempts += 1
            row.next_attempt_at = now + lease
            return _value(row)

    def delivered(self, delivery: str, now: datetime) -> None:
        """The target took it; nothing more is sent."""
        with self._database.write() as session:
            row = _row(session, delivery)
            row.delivered_at, row.next_attempt_at, row.last_error = now, None, None

    def failed(self, delivery: str, error: str, next_attempt_at: datetime | None) -> None:
        """The attempt failed: another follows at that time, or none. One that was delivered meanwhile stays so."""
        with self._database.write() as session:
            row = _row(session, delivery)
            if row.delivered_at is None:
                row.last_error, row.next_attempt_at = error, next_attempt_at

    def give_up(self, queued_before: datetime, error: str) -> int:
        """Give up what was queued before this and never taken, whatever its target; how many."""
        late = (DeliveryRow.next_attempt_at.is_not(None), DeliveryRow.queued_at < queued_before)
        with self._database.read() as session:
            if session.scalar(select(DeliveryRow.id).where(*late).limit(1)) is None:
                return 0
        with self._database.write() as session:
            count = session.scalar(select(func.count()).select_from(DeliveryRow).where(*late)) or 0
            said = func.coalesce(DeliveryRow.last_error, error)
            session.execute(update(DeliveryRow).where(*late).values(next_attempt_at=None, last_error=said))
            return count

    def requeue(self, now: datetime) -> int:
        """Put everything that was given up back in the queue, due at once, with all its attempts; how many."""
        ended = (DeliveryRow.next_attempt_at.is_(None), DeliveryRow.delivered_at.is_(None))
        with self._database.write() as session:
            count = session.scalar(select(func.count()).select_from(DeliveryRow).where(*ended)) or 0
            change = update(DeliveryRow).where(*ended)
            session.execute(change.values(next_attempt_at=now, queued_at=now, attempts=0, last_error=None))
            return count

    def list(self, state: DeliveryState | None = None, limit: int = 100) -> Deliveries:
        """Up to `limit` deliveries, those of the newest reports first."""
        query = select(DeliveryRow).order_by(DeliveryRow.report.desc(), DeliveryRow.target).limit(limit)
        if state is not None:
            query = query.where(_STATE.in_([state.value]))
        with self._database.read() as session:
            return [_value(row) for row in session.scalars(query)]

    def counts(self) -> Mapping[DeliveryState, int]:
        """How many deliveries stand in each state; every state is named."""
        query = select(_STATE.label("state"), func.count()).group_by("state")
        with self._database.read() as session:
            found = {DeliveryState(state): count for state, count in session.execute(query).tuples()}
        return {state: found.get(state, 0) for state in DeliveryState}


def _row(session: Session, delivery: str) -> DeliveryRow:
    row = session.get(DeliveryRow, delivery)
    if row is None:
        raise NotFoundError(f"there is no delivery {delivery}; list the deliveries to see which there are")
    return row


def _state(row: DeliveryRow) -> DeliveryState:
    if row.delivered_at is not None:
        return DeliveryState.DELIVERED
    if row.next_attempt_at is None:
        return DeliveryState.GIVEN_UP
    return DeliveryState.RETRYING if row.attempts else DeliveryState.WAITING


def _value(row: DeliveryRow) -> Delivery:
    return Delivery(
        id=row.id,
        report=row.report,
        target=row.target,
        state=_state(row),
        queued_at=row.queued_at,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        delivered_at=row.delivered_at,
        last_error=row.last_error,
    )
