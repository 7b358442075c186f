"""Images let go: stored pictures and masks of learnt samples are deleted, rows stay; knows nothing of activations.

Files go first and the ledger's entry last, under the write lock: a killed call finds by the missing entry that it was
not finished. The caller knows that whatever is still needed of the pictures is kept elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, final

from sqlalchemy import select
from sqlalchemy.orm import Session

from continual.domain.samples import Sample
from registry import ledger
from registry.artifacts import ArtifactStore
from registry.database import Database, chunks
from registry.plain_json import check_text
from registry.tables import LedgerRow, ReplacedMaskRow, SampleRow

LET_GO = "images_let_go"


@dataclass(frozen=True, slots=True)
class LetGo:
    """Images of one site that were let go together, as the ledger has it.

    `images` and `masks` count what went, which leaves out what another sample still uses. `samples` is how many there
    are in `batches`.
    """

    position: int
    let_go_at: datetime
    adapter: str
    site: str
    batches: tuple[int, ...]
    samples: int
    images: int
    masks: int
    actor: str


Entries: TypeAlias = list[LetGo]


@final
class ImageStore:
    """Lets images go and remembers that it did."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    def let_go(self, adapter: str, samples: Sequence[Sample], actor: str) -> Entries:
        """Delete images and masks, replaced ones too, of these samples, but for what samples beside them use.

        An entry per site that has samples of a batch never let go before, or of which something was still stored.
        Killed at any moment, the same call again finishes.
        """
        check_text(adapter, "adapter")
        check_text(actor, "actor")
        with self._database.write() as session:
            unshared = _unshared(session, samples)
            stored = frozenset(self._artifacts.sizes(unshared))
            before = frozenset((entry.site, batch) for entry in _entries(session) for batch in entry.batches)
            sweep = _Sweep(adapter, samples, unshared, stored, before)
            sites = dict.fromkeys(sample.site for sample in samples)
            found = [_payload(session, sweep, site) for site in sites]
            # Under the write lock: no intake can come to rely on a file between the question and its deletion.
            self._artifacts.delete_all(stored)
            at = ledger.moment(session)
            written = [payload for payload in found if payload is not None]
            for payload in written:
                ledger.append(session, at, actor, LET_GO, payload)
            entries = _entries(session)
            return entries[len(entries) - len(written) :]

    def list(self) -> Entries:
        """Every time that images were let go, oldest first."""
        with self._database.read() as session:
            return _entries(session)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One call: the files that may go, those that are stored, and the batches that earlier entries name."""

    adapter: str
    samples: Sequence[Sample]
    unshared: frozenset[str]
    stored: frozenset[str]
    before: frozenset[tuple[str, int]]


def _entries(session: Session) -> Entries:
    query = select(LedgerRow).where(LedgerRow.event == LET_GO).order_by(LedgerRow.position)
    return [_entry(row) for row in session.scalars(query)]


def _files(session: Session, samples: Sequence[Sample]) -> tuple[set[str], set[str]]:
    """Addresses of the samples' images, and of their masks, in use or replaced."""
    masks: set[str] = set()
    mine = {(sample.site, sample.digest) for sample in samples}
    for keys in chunks([sample.digest for sample in samples]):
        for table in (SampleRow, ReplacedMaskRow):
            query = select(table.site, table.digest, table.mask).where(table.digest.in_(keys), table.mask.is_not(None))
            masks.update(mask for site, digest, mask in session.execute(query) if mask and (site, digest) in mine)
    return {sample.artifact for sample in samples}, masks


def _unshared(session: Session, samples: Sequence[Sample]) -> frozenset[str]:
    """Addresses of the samples' files that no other sample uses, as image or as mask, in use or replaced."""
    mine = {(sample.site, sample.digest) for sample in samples}
    images, masks = _files(session, samples)
    used: set[str] = set()
    for keys in chunks(sorted(images | masks)):
        for table, column in _USES:
            query = select(table.site, table.digest, column).where(column.in_(keys))
            used.update(address for site, digest, address in session.execute(query) if (site, digest) not in mine)
    return frozenset(images | masks) - used


_USES: Sequence[tuple[Any, Any]] = (
    (SampleRow, SampleRow.artifact),
    (SampleRow, SampleRow.mask),
    (ReplacedMaskRow, ReplacedMaskRow.mask),
)


def _payload(session: Session, sweep: _Sweep, site: str) -> dict[str, Any] | None:
    """What the ledger says of a site; None when there is nothing new to say."""
    mine = [sample for sample in sweep.samples if sample.site == site]
    fresh = [sample for sample in mine if (site, sample.batch) not in sweep.before]
    # Of batches that a killed call had begun with, what it had deleted counts too.
    counted = sweep.unshared & (sweep.stored | set().union(*_files(session, fresh)))
    images, masks = _files(session, mine)
    if not fresh and not counted & (images | masks):
        return None
    return {
        "adapter": sweep.adapter,
        "site": site,
        "batches": sorted({sample.batch for sample in mine}),
        "samples": len(mine),
        "images": len(counted & images),
        "masks": len(counted & masks),
    }


def _entry(row: LedgerRow) -> LetGo:
    payload = row.payload
    return LetGo(
        position=row.position,
        let_go_at=row.recorded_at,
        adapter=payload["adapter"],
        site=payload["site"],
        batches=tuple(payload["batches"]),
        samples=payload["samples"],
        images=payload["images"],
        masks=payload["masks"],
        actor=row.actor,
    )
