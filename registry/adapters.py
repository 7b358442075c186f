"""The adapter store: immutable numbered versions and the aliases that point at them; knows nothing of training."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias, final

from sqlalchemy import func, select

from continual.domain.adapters import CHAMPION, AdapterVersion, AliasMove, GateDecision, VersionDraft
from continual.domain.errors import NotFoundError
from registry import aliases, ledger
from registry.aliases import MoveOrder
from registry.artifacts import ArtifactStore
from registry.database import Database, PinnedNumber
from registry.plain_json import check_text
from registry.tables import ALIAS_REVISION, VersionRow
from registry.versions import (
    bump_alias_revision,
    check_draft,
    decide_row,
    describe_files,
    find_row,
    folder_digest,
    new_row,
    same_folder,
    version_of,
)

Versions: TypeAlias = list[AdapterVersion]
Moves: TypeAlias = list[AliasMove]


@final
class AdapterStore:
    """Versions start as candidates, the gate decides once, and an alias points at accepted versions only."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts
        self._revision = PinnedNumber(
            database.engine,
            f"SELECT value FROM counters WHERE name = '{ALIAS_REVISION}'",  # noqa: S608  a constant
        )

    def register(self, draft: VersionDraft, files: Mapping[str, bytes], actor: str) -> AdapterVersion:
        """Store a candidate under the adapter's next number, from 1; the same folder and parent again is the same one.

        Raises NotFoundError without the parent, ArtifactError on a file that is not safetensors, JSON or Markdown,
        StorageFullError when there is no room.
        """
        check_draft(draft)
        check_text(actor, "actor")
        described = describe_files(files)
        self._artifacts.put_all(files.values())
        with self._database.write() as session:
            if draft.parent is not None:
                find_row(session, draft.adapter, draft.parent)
            existing = same_folder(session, draft, folder_digest(described))
            if existing is not None:
                return version_of(existing)
            largest = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.adapter == draft.adapter))
            row = new_row(draft, (largest or 0) + 1, described, ledger.moment(session))
            session.add(row)
            payload = {"adapter": row.adapter, "version": row.number, "parent": row.parent, "digest": row.digest}
            ledger.append(session, row.created_at, actor, "version_registered", payload)
            bump_alias_revision(session)
            return version_of(row)

    def decide(self, adapter: str, number: int, gate: GateDecision, actor: str) -> AdapterVersion:
        """Make a candidate accepted or rejected, once; the same verdict again changes nothing.

        Raises ConflictError on the opposite verdict, NotFoundError without such a version.
        """
        check_text(actor, "actor")
        with self._database.write() as session:
            row = find_row(session, adapter, number)
            decide_row(session, row, gate, actor)
            return version_of(row)

    def move_alias(self, adapter: str, alias: str, number: int, actor: str, reason: str) -> AliasMove:
        """Point an alias at an accepted version; the last move when it points there already.

        Raises NotAcceptedError with the gate's failing findings, NotFoundError without such a version.
        """
        order = MoveOrder(adapter, alias, number, actor, reason)
        order.check()
        with self._database.write() as session:
            return aliases.move(session, order)

    def promote(
        self, adapter: str, number: int, gate: GateDecision, alias: str, actor: str, reason: str
    ) -> AdapterVersion:
        """Decide and, if accepted, move the alias, both or neither; repeating it changes nothing.

        A version that the alias once pointed at is not brought back: that is `move_alias`. Raises ConflictError when
        the champion has moved on from the version's parent meanwhile; the candidate then stays undecided.
        """
        order = MoveOrder(adapter, alias, number, actor, reason)
        order.check()
        with self._database.write() as session:
            row = find_row(session, adapter, number)
            decide_row(session, row, gate, actor)
            if gate.accepted:
                aliases.promote(session, order)
            return version_of(row)

    def rollback(self, adapter: str, actor: str, reason: str, alias: str = CHAMPION) -> AliasMove:
        """Point the alias where it stood before its current version; again goes further back.

        Raises NotFoundError when nothing came before.
        """
        MoveOrder(adapter, alias, 0, actor, reason).check()
        with self._database.write() as session:
            return aliases.roll_back(session, adapter, alias, actor, reason)

    def current(self, adapter: str, alias: str = CHAMPION, at: datetime | None = None) -> AdapterVersion:
        """The version the alias points at, or pointed at then (a time without a zone is UTC); NotFoundError if none."""
        with self._database.read() as session:
            return version_of(aliases.current_row(session, adapter, alias, at))

    def get(self, adapter: str, number: int) -> AdapterVersion:
        """One version; NotFoundError when there is none."""
        with self._database.read() as session:
            return version_of(find_row(session, adapter, number))

    def list(self, adapter: str) -> Versions:
        """All versions of an adapter by number; none for an unknown adapter."""
        query = select(VersionRow).where(VersionRow.adapter == adapter).order_by(VersionRow.number)
        with self._database.read() as session:
            return [version_of(row) for row in session.scalars(query)]

    def in_service(self, adapter: str) -> frozenset[int]:
        """Numbers of the champion and of the versions that it was learnt from; none where nobody serves.

        What was rolled back is not among them, nor what was learnt from it.
        """
        parents = {version.number: version.parent for version in self.list(adapter)}
        number, found = self.aliases(adapter).get(CHAMPION), set[int]()
        while number is not None:
            found.add(number)
            number = parents.get(number)
        return frozenset(found)

    def names(self) -> tuple[str, ...]:
        """Names of all adapters that have a version, sorted."""
        with self._database.read() as session:
            return tuple(sorted(session.scalars(select(VersionRow.adapter).distinct())))

    def history(self, adapter: str, alias: str) -> Moves:
        """Every move of the alias, oldest first; none when it was never moved."""
        with self._database.read() as session:
            return [*aliases.history(session, adapter, alias)]

    def aliases(self, adapter: str) -> dict[str, int]:
        """Each alias of the adapter and the number it points at, in order of alias."""
        with self._database.read() as session:
            return aliases.all_aliases(session, adapter)

    def file(self, adapter: str, number: int, name: str) -> bytes:
        """One file of a version, held against its digest; NotFoundError when the version has no such file."""
        version = self.get(adapter, number)
        if name not in version.files:
            raise NotFoundError(
                f"version {number} of {adapter!r} has no file {name[:80]!r}; it has {', '.join(version.files)}"
            )
        return self._artifacts.get(version.files[name][0])

    def files(self, version: AdapterVersion) -> dict[str, bytes]:
        """All files of a version by name, each held against its digest."""
        return {name: self._artifacts.get(digest) for name, (digest, _) in version.files.items()}

    def alias_revision(self) -> int:
        """A number that grows whenever, in any process, an alias moves or a version is registered or decided."""
        return self._revision.read()

    def close(self) -> None:
        """Close the connection kept for `alias_revision`."""
        self._revision.close()
