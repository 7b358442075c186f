"""The hold store: intake batches with faulty images, which nothing learns or judges; knows nothing of what a fault is.

A hold is made once. Whoever releases a batch has looked at its images: it is never held again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, final

from sqlalchemy import Select, func, insert, select

from continual.domain.errors import NotFoundError
from registry import ledger
from registry.database import Database
from registry.plain_json import check_text
from registry.tables import BatchHoldRow, BatchRow, SampleRow

HELD = "batches_held"
RELEASED = "batch_released"


@dataclass(frozen=True, slots=True)
class Hold:
    """One held batch; `samples` are those of it that are stored. `released_at` is None while it is held."""

    batch: int
    site: str
    samples: int
    reason: str
    actor: str
    held_at: datetime
    released_at: datetime | None


Holds: TypeAlias = list[Hold]


@final
class HoldStore:
    """Holds batches and lets them go again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, batches: Collection[int], reason: str, actor: str) -> tuple[int, ...]:
        """Hold batches; those that are now held and were not before, in order. One that was released stays so.

        `reason` must name no patient, as the ledger never forgets it. Raises NotFoundError for an unknown batch.
        """
        check_text(actor, "actor")
        check_text(reason, "reason")
        with self._database.write() as session:
            known = set(session.scalars(select(BatchRow.number).where(BatchRow.number.in_(batches))))
            _require(set(batches) - known)
            before = set(session.scalars(select(BatchHoldRow.batch)))
            new = sorted(known - before)
            if new:
                at = ledger.moment(session)
                rows = [{"batch": batch, "reason": reason, "actor": actor, "held_at": at} for batch in new]
                session.execute(insert(BatchHoldRow), rows)
                ledger.append(session, at, actor, HELD, {"batches": new, "reason": reason})
            return tuple(new)

    def release(self, batch: int, reason: str, actor: str) -> Hold:
        """Use a held batch after all; again it changes nothing. Raises NotFoundError for one that was never held."""
        check_text(actor, "actor")
        check_text(reason, "reason")
        with self._database.write() as session:
            row = session.get(BatchHoldRow, batch)
            if row is None:
                raise NotFoundError(f"batch {batch} was never held; list the holds to see which are")
            if row.released_at is None:
                row.released_at = ledger.moment(session)
                ledger.append(session, row.released_at, actor, RELEASED, {"batch": batch, "reason": reason})
        return next(hold for hold in self.list() if hold.batch == batch)

    def list(self, site: str | None = None) -> Holds:
        """All holds, released ones too, oldest batch first."""
        query = _holds()
        if site is not None:
            query = query.where(BatchRow.site == site)
        with self._database.read() as session:
            return [Hold(**row) for row in session.execute(query).mappings()]

    def samples_held(self, site: str) -> int:
        """How many stored samples of a site are in held batches."""
        return sum(hold.samples for hold in self.list(site) if hold.released_at is None)

    def held(self, site: str | None = None) -> frozenset[int]:
        """Numbers of the batches that are held now."""
        return frozenset(hold.batch for hold in self.list(site) if hold.released_at is None)


def held_batches() -> Select[tuple[int]]:
    """The numbers of held batches, for another store's query."""
    return select(BatchHoldRow.batch).where(BatchHoldRow.released_at.is_(None))


def _holds() -> Select[Any]:
    samples = select(func.count()).where(SampleRow.batch == BatchHoldRow.batch).scalar_subquery()
    columns = (BatchHoldRow.reason, BatchHoldRow.actor, BatchHoldRow.held_at, BatchHoldRow.released_at)
    query = select(BatchHoldRow.batch, BatchRow.site, samples.label("samples"), *columns)
    return query.join(BatchRow, BatchRow.number == BatchHoldRow.batch).order_by(BatchHoldRow.batch)


def _require(unknown: Collection[int]) -> None:
    if unknown:
        raise NotFoundError(f"there is no batch {min(unknown)}; list the batches to see which there are")
