"""The erasure store: takes a subject's samples out of tables and artifact store; knows nothing of models or caches.

What stays is the subject's pseudonym with its split, so that a patient who returns stands on the same side, and the
ledger's entry. Files go first and rows last: a killed erasure still finds by its rows what is left to delete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, final

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from continual.domain.errors import ConflictError, NotFoundError
from registry import ledger
from registry.artifacts import ArtifactStore
from registry.database import Database, chunks
from registry.images import LET_GO
from registry.masks import drop_replaced, masks_of, used_masks
from registry.plain_json import check_text
from registry.quarantine import drop_entries
from registry.tables import LateLabelRow, LedgerRow, PredictionRow, QuarantineRow, SampleRow, SubjectRow

ERASED = "subject_erased"


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """Who wants which subject erased, and why. `findings` is plain JSON that the ledger keeps beside the counts.

    `subject` is a pseudonym; `reason` must not name the patient, as the ledger never forgets it.
    """

    site: str
    subject: str
    actor: str
    reason: str
    findings: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """RegistryError on texts that cannot be stored."""
        for name, value in (("site", self.site), ("subject", self.subject), ("actor", self.actor)):
            check_text(value, name)
        check_text(self.reason, "reason")


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure as the ledger has it: numbers of samples, of their images, masks and quarantine entries that went.

    `artifacts` counts images and `masks` masks, replaced ones too; neither counts what another sample still uses.
    """

    position: int
    erased_at: datetime
    site: str
    subject: str
    actor: str
    reason: str
    samples: int
    artifacts: int
    quarantined: int
    findings: Mapping[str, Any]
    masks: int = 0


Erasures: TypeAlias = list[Erasure]


@final
class ErasureStore:
    """Erases subjects and remembers that it did."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    def site_of(self, subject: str, site: str | None = None) -> str:
        """The site that a pseudonym was taken in at, erased since or not.

        Raises NotFoundError when it never was, there or anywhere, and ConflictError when two sites know it.
        """
        query = select(SubjectRow.site).where(SubjectRow.pseudonym == check_text(subject, "subject"))
        if site is not None:
            query = query.where(SubjectRow.site == check_text(site, "site"))
        with self._database.read() as session:
            found = session.scalars(query.order_by(SubjectRow.site)).all()
            known = session.scalars(select(SubjectRow.site).distinct().order_by(SubjectRow.site)).all()
        if not found:
            place = "any site" if site is None else f"site {site!r}"
            raise NotFoundError(
                f"no subject {subject} was ever taken in at {place}; sites with subjects: "
                f"{', '.join(known) or 'none'}; check name and site: a pseudonym depends on both, to the letter"
            )
        if len(found) > 1:
            raise ConflictError(f"subject {subject} is known at {len(found)} sites ({', '.join(found)}); name one")
        return found[0]

    def erase(self, order: ErasureOrder) -> Erasure | None:
        """Delete a subject's images, masks, samples and quarantine entries; None when nothing was held.

        An image or mask that another subject's sample uses stays. Killed at any moment it leaves the subject whole or
        without some of its files, and the same call again finishes. Raises NotFoundError without such a subject.
        """
        order.check()
        self.site_of(order.subject, order.site)
        with self._database.write() as session:
            held = _held(session, order)
            if not held.digests and not held.entries:
                return None
            # Under the write lock: no intake can come to rely on a file between the question and its deletion.
            self._artifacts.delete_all([*held.images, *held.masks])
            _delete_rows(session, order, held)
            payload = {
                "site": order.site,
                "subject": order.subject,
                "reason": order.reason,
                "samples": len(held.digests),
                "artifacts": len(held.images),
                "masks": len(held.masks),
                "quarantined": len(held.entries),
                "findings": order.findings,
            }
            ledger.append(session, ledger.moment(session), order.actor, ERASED, payload)
            newest = select(LedgerRow).order_by(LedgerRow.position.desc()).limit(1)
            erased = _erasure(session.scalars(newest).one())
        self._database.flush_log()
        return erased

    def list(self, site: str | None = None, subject: str | None = None) -> Erasures:
        """Every erasure, oldest first, of one site or subject if asked."""
        query = select(LedgerRow).where(LedgerRow.event == ERASED).order_by(LedgerRow.position)
        with self._database.read() as session:
            found = [_erasure(row) for row in session.scalars(query)]
        return [one for one in found if site in (None, one.site) and subject in (None, one.subject)]


def count_removals(session: Session) -> int:
    """How often images went from the store: erasures, and images let go."""
    query = select(func.count()).select_from(LedgerRow).where(LedgerRow.event.in_((ERASED, LET_GO)))
    return session.scalar(query) or 0


@dataclass(frozen=True, slots=True)
class _Held:
    """What is to go: digests of samples, addresses of files that nobody else uses, numbers of quarantine entries."""

    digests: Sequence[str]
    images: Sequence[str]
    masks: Sequence[str]
    entries: Sequence[int]


def _held(session: Session, order: ErasureOrder) -> _Held:
    whose = and_(SampleRow.site == order.site, SampleRow.subject == order.subject)
    query = select(SampleRow.digest, SampleRow.artifact).where(whose).order_by(SampleRow.digest)
    samples = session.execute(query).tuples().all()
    digests = [digest for digest, _ in samples]
    images = _unshared(session, order, sorted({artifact for _, artifact in samples}))
    masks = _unshared(session, order, sorted(masks_of(session, whose)))
    return _Held(digests, images, masks, _entries(session, order, digests))


def _delete_rows(session: Session, order: ErasureOrder, held: _Held) -> None:
    drop_entries(session, held.entries)
    drop_replaced(session, order.site, held.digests)
    _delete_predictions(session, order, held.digests)
    session.execute(delete(SampleRow).where(SampleRow.site == order.site, SampleRow.subject == order.subject))


def _delete_predictions(session: Session, order: ErasureOrder, digests: Sequence[str]) -> None:
    """Predictions and late labels of the subject's pictures at the site.

    Of pictures that no other subject has, all: also those that came without a site or were asked for under another's.
    """
    others = or_(SampleRow.site != order.site, SampleRow.subject != order.subject)
    for keys in chunks(digests):
        shared = session.scalars(select(SampleRow.digest).where(others, SampleRow.digest.in_(keys))).all()
        alone = [digest for digest in keys if digest not in set(shared)]
        for row in (PredictionRow, LateLabelRow):
            session.execute(delete(row).where(row.site == order.site, row.digest.in_(keys)))
            session.execute(delete(row).where(row.digest.in_(alone)))


def _entries(session: Session, order: ErasureOrder, digests: Sequence[str]) -> list[int]:
    """Quarantine entries of the subject's pictures (offered again with another label), or that name the subject."""
    at_site = select(QuarantineRow.id).where(QuarantineRow.site == order.site)
    found = set(session.scalars(at_site.where(QuarantineRow.reason.contains(order.subject, autoescape=True))))
    for keys in chunks(digests):
        found.update(session.scalars(at_site.where(QuarantineRow.file_digest.in_(keys))))
    return sorted(found)


def _unshared(session: Session, order: ErasureOrder, artifacts: Sequence[str]) -> list[str]:
    """The artifacts that no other subject's sample uses, at any site, as image or as mask."""
    others = or_(SampleRow.site != order.site, SampleRow.subject != order.subject)
    used = used_masks(session, artifacts, others)
    for keys in chunks(artifacts):
        used.update(session.scalars(select(SampleRow.artifact).where(others, SampleRow.artifact.in_(keys))))
    return [artifact for artifact in artifacts if artifact not in used]


def _erasure(row: LedgerRow) -> Erasure:
    payload = row.payload
    return Erasure(
        position=row.position,
        erased_at=row.recorded_at,
        site=payload["site"],
        subject=payload["subject"],
        actor=row.actor,
        reason=payload["reason"],
        samples=payload["samples"],
        artifacts=payload["artifacts"],
        quarantined=payload["quarantined"],
        findings=payload["findings"],
        masks=payload.get("masks", 0),
    )
