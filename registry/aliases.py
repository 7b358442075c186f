"""Movable names for accepted versions, kept as an append-only history; knows nothing of files or the gate's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from continual.domain.adapters import CHAMPION, AdapterState, AliasMove
from continual.domain.errors import ConflictError, NotAcceptedError, NotFoundError
from registry import ledger
from registry.database import next_number
from registry.plain_json import check_name, check_text
from registry.tables import AliasMoveRow, VersionRow
from registry.versions import bump_alias_revision, find_row, gate_of


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """Who wants which alias moved where, and why; `rolled_back` says that the move undoes an earlier one."""

    adapter: str
    alias: str
    number: int
    actor: str
    reason: str
    rolled_back: bool = False

    def check(self) -> None:
        """RegistryError on names or texts that cannot be stored."""
        check_name(self.adapter, "adapter")
        check_name(self.alias, "alias")
        check_text(self.actor, "actor")
        check_text(self.reason, "reason")


def move(session: Session, order: MoveOrder) -> AliasMove:
    """Append a move to an accepted version; the last move when the alias stands there already.

    Raises NotFoundError without such a version, NotAcceptedError with the gate's failing findings.
    """
    row = find_row(session, order.adapter, order.number)
    if row.state != AdapterState.ACCEPTED.value:
        raise NotAcceptedError(_not_accepted(row, order.alias))
    last = last_move(session, order.adapter, order.alias)
    if last is not None and last.to_version == order.number:
        return _value(last)
    added = AliasMoveRow(
        id=next_number(session, AliasMoveRow.id),
        adapter=order.adapter,
        alias=order.alias,
        from_version=None if last is None else last.to_version,
        to_version=order.number,
        rolled_back=order.rolled_back,
        actor=order.actor,
        reason=order.reason,
        moved_at=ledger.moment(session),
    )
    session.add(added)
    payload = {
        "adapter": added.adapter,
        "alias": added.alias,
        "from_version": added.from_version,
        "to_version": added.to_version,
        "rolled_back": added.rolled_back,
        "reason": added.reason,
    }
    ledger.append(session, added.moved_at, order.actor, "alias_moved", payload)
    bump_alias_revision(session)
    return _value(added)


def promote(session: Session, order: MoveOrder) -> None:
    """Move the alias to a version for the first time; a repeated promotion brings nothing back.

    Raises ConflictError when the champion has moved on since the version was trained on it: its gate compared it with
    a version that no longer serves.
    """
    moves = session.scalars(_moves(order.adapter, order.alias)).all()
    if any(row.to_version == order.number for row in moves):
        return
    parent = find_row(session, order.adapter, order.number).parent
    current = moves[-1].to_version if moves else None
    if order.alias == CHAMPION and parent is not None and current is not None and parent != current:
        raise ConflictError(
            f"version {order.number} of {order.adapter!r} was trained on and compared with version {parent}, but "
            f"{order.alias!r} is version {current} now; run the update again from there"
        )
    move(session, order)


def roll_back(session: Session, adapter: str, alias: str, actor: str, reason: str) -> AliasMove:
    """Append the move that undoes the newest one not yet undone; NotFoundError when nothing came before."""
    moves = session.scalars(_moves(adapter, alias)).all()
    if not moves:
        raise NotFoundError(_no_alias(adapter, alias))
    target = _before(moves)
    if target is None:
        raise NotFoundError(
            f"alias {alias!r} of {adapter!r} has no version before {moves[-1].to_version}; "
            "move the alias to an accepted version instead"
        )
    return move(session, MoveOrder(adapter, alias, target, actor, reason, rolled_back=True))


def current_row(session: Session, adapter: str, alias: str, at: datetime | None = None) -> VersionRow:
    """The version an alias points at, now or at a time in the past; NotFoundError when at none."""
    query = select(VersionRow).join(
        AliasMoveRow,
        (AliasMoveRow.adapter == VersionRow.adapter) & (AliasMoveRow.to_version == VersionRow.number),
    )
    query = query.where(AliasMoveRow.adapter == adapter, AliasMoveRow.alias == alias)
    if at is not None:
        query = query.where(AliasMoveRow.moved_at <= at)
    row = session.scalar(query.order_by(AliasMoveRow.id.desc()).limit(1))
    if row is None:
        raise NotFoundError(_no_alias(adapter, alias) if at is None else f"{_no_alias(adapter, alias)} (at {at})")
    return row


def history(session: Session, adapter: str, alias: str) -> Sequence[AliasMove]:
    """Every move, oldest first."""
    return [_value(row) for row in session.scalars(_moves(adapter, alias))]


def all_aliases(session: Session, adapter: str) -> dict[str, int]:
    """Alias to the number it points at, in order of alias."""
    query = select(AliasMoveRow).where(AliasMoveRow.adapter == adapter).order_by(AliasMoveRow.id)
    latest = {row.alias: row.to_version for row in session.scalars(query)}
    return dict(sorted(latest.items()))


def last_move(session: Session, adapter: str, alias: str) -> AliasMoveRow | None:
    """The newest move of an alias, if it was ever moved."""
    return session.scalar(_moves(adapter, alias).order_by(None).order_by(AliasMoveRow.id.desc()).limit(1))


def _before(moves: Sequence[AliasMoveRow]) -> int | None:
    """Where the alias stood before its current version, undone moves left out; None at the beginning."""
    standing: list[int] = []
    for row in moves:
        if row.rolled_back:
            while standing and standing[-1] != row.to_version:
                standing.pop()
        if not standing or standing[-1] != row.to_version:
            standing.append(row.to_version)
    return standing[-2] if len(standing) > 1 else None


def _moves(adapter: str, alias: str) -> Select[tuple[AliasMoveRow]]:
    query = select(AliasMoveRow).where(AliasMoveRow.adapter == adapter, AliasMoveRow.alias == alias)
    return query.order_by(AliasMoveRow.id)


def _no_alias(adapter: str, alias: str) -> str:
    return f"alias {alias!r} of adapter {adapter!r} points at no version; accept a version and move the alias to it"


def _not_accepted(row: VersionRow, alias: str) -> str:
    head = f"version {row.number} of {row.adapter!r} is {row.state}, so alias {alias!r} stays where it is"
    if row.gate is None:
        return f"{head}; run the gate on it first"
    failing = [f"{finding.site}: {finding.reason}" for finding in gate_of(row.gate).findings if not finding.passed]
    return f"{head}; failing findings: {'; '.join(failing) or 'none recorded'}; train a new candidate"


def _value(row: AliasMoveRow) -> AliasMove:
    return AliasMove(
        adapter=row.adapter,
        alias=row.alias,
        from_version=row.from_version,
        to_version=row.to_version,
        actor=row.actor,
        reason=row.reason,
        moved_at=row.moved_at,
    )
