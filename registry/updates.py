"""The update store: one row per attempt to update an adapter, so that a killed one is found; knows no training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias, final

from sqlalchemy import select
from sqlalchemy.orm import Session

from continual.domain.errors import ConflictError, NotFoundError, SettingsError
from registry import ledger
from registry.database import Database, next_number
from registry.plain_json import check_name, check_text, plain
from registry.tables import UpdateRow

RUNNING = "running"
INTERRUPTED = "interrupted"
JUDGED = frozenset({"accepted", "rejected"})
"""Outcomes of an update that the gate spoke on."""
FINAL_OUTCOMES = (*sorted(JUDGED), "skipped", "failed", INTERRUPTED)
REAPER = "reaper"


@dataclass(frozen=True, slots=True)
class Update:
    """One attempt to update an adapter with a site's new experience.

    `outcome` is running, accepted, rejected, skipped, failed or interrupted; `seconds` maps a stage to its duration.
    """

    id: int
    adapter: str
    site: str
    parent: int | None
    version: int | None
    outcome: str
    started_at: datetime
    finished_at: datetime | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)

    def answers(self, looked_at: datetime | None) -> bool:
        """Whether it began after a look, and so has the last word on the site; None where nobody looked."""
        return looked_at is None or self.started_at > looked_at


Updates: TypeAlias = list[Update]


@final
class UpdateStore:
    """Attempts, newest first; at most one per adapter and site is running."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, adapter: str, site: str, parent: int | None, plan: Mapping[str, Any], actor: str) -> Update:
        """Open an attempt; an earlier one of the same adapter and site that still runs is marked interrupted."""
        check_name(adapter, "adapter")
        check_text(site, "site")
        check_text(actor, "actor")
        running = select(UpdateRow).where(
            UpdateRow.adapter == adapter, UpdateRow.site == site, UpdateRow.outcome == RUNNING
        )
        with self._database.write() as session:
            now = ledger.moment(session)
            for earlier in session.scalars(running).all():
                _interrupt(session, earlier, now, actor)
            row = UpdateRow(
                id=next_number(session, UpdateRow.id),
                adapter=adapter,
                site=site,
                parent=parent,
                version=None,
                outcome=RUNNING,
                started_at=now,
                finished_at=None,
                seconds={},
                plan=plain(plan, "plan"),
                actor=actor,
            )
            session.add(row)
            payload = {"update": row.id, "adapter": adapter, "site": site, "parent": parent, "plan": row.plan}
            ledger.append(session, now, actor, "update_started", payload)
            return _value(row)

    def finish(self, number: int, version: int | None, outcome: str, seconds: Mapping[str, float]) -> Update:
        """Close an attempt; the same outcome again changes nothing. An interrupted one that did end may still close.

        Raises NotFoundError without such an attempt, ConflictError when it ended otherwise, SettingsError on an
        outcome that is none.
        """
        if outcome not in FINAL_OUTCOMES:
            raise SettingsError(f"update outcome {outcome!r} is unknown; use one of {', '.join(FINAL_OUTCOMES)}")
        with self._database.write() as session:
            row = session.get(UpdateRow, number)
            if row is None:
                raise NotFoundError(f"there is no update {number}; begin one first")
            if row.outcome == outcome and row.version == version:
                return _value(row)
            if row.outcome not in (RUNNING, INTERRUPTED):
                raise ConflictError(f"update {number} ended {row.outcome} already, not {outcome}; begin a new one")
            now = ledger.moment(session)
            row.version, row.outcome, row.finished_at = version, outcome, now
            row.seconds = plain(seconds, "seconds")
            payload = {"update": row.id, "version": version, "outcome": outcome, "seconds": row.seconds}
            ledger.append(session, now, row.actor, "update_finished", payload)
            return _value(row)

    def list(self, adapter: str | None = None, limit: int = 100) -> Updates:
        """Up to `limit` attempts, newest first."""
        query = select(UpdateRow).order_by(UpdateRow.id.desc()).limit(limit)
        if adapter is not None:
            query = query.where(UpdateRow.adapter == adapter)
        with self._database.read() as session:
            return [_value(row) for row in session.scalars(query)]

    def reap(self, older_than: timedelta) -> int:
        """Mark attempts interrupted that began longer ago than this and never ended; how many."""
        with self._database.write() as session:
            now = ledger.moment(session)
            query = select(UpdateRow).where(UpdateRow.outcome == RUNNING, UpdateRow.started_at <= now - older_than)
            lost = session.scalars(query.order_by(UpdateRow.id)).all()
            for row in lost:
                _interrupt(session, row, now, REAPER)
            return len(lost)


def _interrupt(session: Session, row: UpdateRow, now: datetime, actor: str) -> None:
    row.outcome, row.finished_at = INTERRUPTED, now
    ledger.append(session, now, actor, "update_interrupted", {"update": row.id, "adapter": row.adapter})


def _value(row: UpdateRow) -> Update:
    return Update(
        id=row.id,
        adapter=row.adapter,
        site=row.site,
        parent=row.parent,
        version=row.version,
        outcome=row.outcome,
        started_at=row.started_at,
        finished_at=row.finished_at,
        seconds=row.seconds,
        plan=row.plan,
    )
