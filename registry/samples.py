"""The sample store: each picture once per site, each subject on one side for ever; knows nothing of file formats."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, final

from sqlalchemy import Select, and_, func, insert, select, update
from sqlalchemy.orm import Session

from continual.domain.adapters import Task
from continual.domain.digests import sha256_bytes, sha256_json
from continual.domain.errors import ConflictError, NotFoundError
from continual.domain.samples import CleanImage, IntakeSummary, QuarantineEntry, Sample, Split
from registry import ledger
from registry.artifacts import ArtifactStore
from registry.database import Database, chunks, next_number
from registry.erasures import count_removals
from registry.holds import held_batches
from registry.intake import IntakePlan, KnownSample, SiteKnowledge, plan_intake
from registry.late_labels import OfferedLabel, early_labels, keep_arrivals
from registry.masks import mask_address, write_masks
from registry.plain_json import check_text, plain
from registry.quarantine import (
    Refusal,
    count_held_back,
    entry_key,
    hold_back,
    mark_stored,
    no_longer_held,
    not_yet_held,
    refusals,
    stored_since,
)
from registry.splits import least_learnt, stratum
from registry.tables import BatchRow, SampleRow, SiteRow, SubjectRow

_ON_SUBJECT = (SubjectRow.site == SampleRow.site) & (SubjectRow.pseudonym == SampleRow.subject)


@dataclass(frozen=True, slots=True)
class Batch:
    """One intake that stored something; the counts are those of its summary, but `quarantined`: of what was refused
    that is what had not been refused before and is not stored by now.
    """

    number: int
    site: str
    created_at: datetime
    new: int
    duplicates: int
    quarantined: int
    actor: str
    relabelled: int = 0


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """How many samples a site has stored: all, those with a label, with a mask, and with neither.

    `quarantined` files are held back to this day: their pictures are not stored.
    """

    samples: int
    labelled: int
    masked: int
    unlabelled: int
    quarantined: int


Samples: TypeAlias = list[Sample]
Batches: TypeAlias = list[Batch]
Refusals: TypeAlias = list[Refusal]


@final
class SampleStore:
    """What every site has brought, without duplicates, and what was held back."""

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    def record(
        self, site: str, images: Sequence[CleanImage], quarantined: Sequence[QuarantineEntry], actor: str
    ) -> IntakeSummary:
        """Store what is new, all of it or nothing; the same call again stores nothing.

        A batch is written when anything was: a sample, a label, a mask, a quarantine entry, or that a file held back
        before is stored by now. Raises ConflictError when an item belongs to another site, StorageFullError when there
        is no room.
        """
        check_text(site, "site")
        check_text(actor, "actor")
        _check_same_site(site, images, quarantined)
        with self._database.read() as session:
            expected = plan_intake(site, images, _knowledge(session, site, images))
            removals = count_removals(session)
        addresses = self._store(expected, {})
        with self._database.write() as session:
            plan = plan_intake(site, images, _knowledge(session, site, images))
            # Another intake may have come between: what only now turns out to be new is stored here. So may an
            # erasure, or images that were let go: whatever went from the store is put back.
            addresses |= self._store(plan, addresses if count_removals(session) == removals else {})
            return _write(session, _Intake(site, actor, plan, tuple(quarantined), addresses))

    def list(
        self,
        site: str | None = None,
        split: Split | None = None,
        labelled: Task | None = None,
        batch: int | None = None,
        *,
        with_held: bool = False,
    ) -> Samples:
        """Samples in order of their site's first intake, then of digest; only those `labelled` for a task if asked.

        Those of held batches (`registry.holds`) are left out, unless `with_held`: nothing may learn or judge them.
        """
        query = _samples()
        if batch is not None:
            query = query.where(SampleRow.batch == batch)
        if not with_held:
            query = query.where(SampleRow.batch.not_in(held_batches()))
        if site is not None:
            query = query.where(SampleRow.site == site)
        if split is not None:
            query = query.where(SubjectRow.split == split.value)
        if labelled is not None:
            query = query.where((SampleRow.mask if labelled is Task.SEGMENTATION else SampleRow.label).is_not(None))
        with self._database.read() as session:
            return [_sample(row) for row in session.execute(query)]

    def get(self, digests: Sequence[str], site: str | None = None) -> Samples:
        """Samples in the order of their digests; of a picture in several sites the one taken in first, unless `site`.

        Raises NotFoundError when a digest is not stored.
        """
        found: dict[str, Sample] = {}
        with self._database.read() as session:
            for keys in chunks(list(dict.fromkeys(digests))):
                query = _samples().where(SampleRow.digest.in_(keys))
                if site is not None:
                    query = query.where(SampleRow.site == site)
                for row in session.execute(query):
                    found.setdefault(row.digest, _sample(row))
        missing = [digest for digest in digests if digest not in found]
        if missing:
            raise NotFoundError(
                f"{len(missing)} of {len(digests)} samples are not stored (the first: {missing[0][:64]!r}); ingest them"
            )
        return [found[digest] for digest in digests]

    def read(self, sample: Sample) -> bytes:
        """What is stored of the sample, a PNG or a volume's NIfTI; ArtifactError when it is missing or damaged."""
        return self._artifacts.get(sample.artifact)

    def read_mask(self, sample: Sample) -> bytes:
        """The sample's mask, PNG or NIfTI as the sample is; NotFoundError when it has none, ArtifactError when it is
        missing or damaged.
        """
        if sample.mask is None:
            raise NotFoundError(f"sample {sample.digest} has no mask; take its image in again with one")
        return self._artifacts.get(sample.mask)

    def sizes(self, samples: Sequence[Sample]) -> dict[str, int]:
        """Bytes of each sample's stored image and mask by the sample's digest; what is missing counts 0."""
        files = {sample.digest: [sample.artifact, *([sample.mask] if sample.mask else [])] for sample in samples}
        found = self._artifacts.sizes(address for addresses in files.values() for address in addresses)
        return {digest: sum(found.get(address, 0) for address in addresses) for digest, addresses in files.items()}

    def stored(self, digests: Collection[str]) -> frozenset[str]:
        """Those of the digests that a sample of any site has."""
        found: set[str] = set()
        with self._database.read() as session:
            for keys in chunks(sorted(digests)):
                found.update(session.scalars(select(SampleRow.digest).where(SampleRow.digest.in_(keys))))
        return frozenset(found)

    def sites(self) -> tuple[str, ...]:
        """Sites that ever had a stored sample, in order of first intake."""
        with self._database.read() as session:
            return tuple(session.scalars(select(SiteRow.name).order_by(SiteRow.position)))

    def counts(self) -> dict[str, SampleCounts]:
        """Counts of every site that `sites` names, in its order; samples of held batches count as all others do."""
        either = func.coalesce(SampleRow.label, SampleRow.mask)
        columns = [func.count(each) for each in (SampleRow.digest, SampleRow.label, SampleRow.mask, either)]
        query = select(SiteRow.name, *columns).join(SampleRow, SampleRow.site == SiteRow.name, isouter=True)
        with self._database.read() as session:
            rows = session.execute(query.group_by(SiteRow.name, SiteRow.position).order_by(SiteRow.position)).all()
            refused = count_held_back(session)
        return {
            site: SampleCounts(samples, labelled, masked, samples - learnable, refused.get(site, 0))
            for site, samples, labelled, masked, learnable in rows
        }

    def classes(self) -> tuple[str, ...]:
        """Distinct labels of all sites, sorted."""
        with self._database.read() as session:
            labels = session.scalars(select(SampleRow.label).where(SampleRow.label.is_not(None)).distinct())
            return tuple(sorted(label for label in labels if label is not None))

    def quarantine(self, site: str | None = None) -> Refusals:
        """What was held back, when, and whether that is settled; oldest first."""
        with self._database.read() as session:
            return refusals(session, site)

    def count_quarantined(self) -> Mapping[str, int]:
        """Files held back to this day by site, in order of name; a site without any is left out."""
        with self._database.read() as session:
            return dict(sorted(count_held_back(session).items()))

    def batches(self, site: str | None = None) -> Batches:
        """Intakes that stored something, oldest first."""
        query = select(BatchRow).order_by(BatchRow.number)
        if site is not None:
            query = query.where(BatchRow.site == site)
        with self._database.read() as session:
            since = stored_since(session, site)
            return [_batch(row, since.get(row.number, 0)) for row in session.scalars(query)]

    def _store(self, plan: IntakePlan, already: Mapping[str, str]) -> dict[str, str]:
        """Addresses of the plan's images by digest, and of its masks by themselves."""
        masks = [*(image.mask_data for image in plan.new if image.mask_data is not None), *plan.masks.values()]
        files = {image.digest: image.data for image in plan.new} | {sha256_bytes(mask): mask for mask in masks}
        missing = {key: data for key, data in files.items() if key not in already}
        return dict(zip(missing, self._artifacts.put_all(missing.values()), strict=True))


@dataclass(frozen=True, slots=True)
class _Intake:
    site: str
    actor: str
    plan: IntakePlan
    offered: tuple[QuarantineEntry, ...]
    addresses: Mapping[str, str]

    def held(self) -> tuple[QuarantineEntry, ...]:
        return self.offered + self.plan.quarantined


def _write(session: Session, intake: _Intake) -> IntakeSummary:
    plan, held = intake.plan, not_yet_held(session, intake.site, intake.held())
    left = no_longer_held(session, intake.site, plan.stored)
    anything = bool(plan.new or plan.relabelled or held or left)
    summary = IntakeSummary(
        site=intake.site,
        batch=next_number(session, BatchRow.number) if anything else None,
        new=len(plan.new),
        duplicates=plan.duplicates,
        quarantined=len(intake.held()),
        relabelled=plan.relabelled,
    )
    if summary.batch is not None:
        _write_rows(session, intake, summary, summary.batch, held, left)
    return summary


def _write_rows(
    session: Session,
    intake: _Intake,
    summary: IntakeSummary,
    batch: int,
    held: Sequence[QuarantineEntry],
    left: Sequence[int],
) -> None:
    plan, at = intake.plan, ledger.moment(session)
    # What was refused before is no news of the scanner, however often it is offered again.
    news = {entry_key(entry) for entry in held}
    refused = [entry for entry in intake.held() if entry_key(entry) in news]
    counts = {
        "new": summary.new,
        "duplicates": summary.duplicates,
        "quarantined": len(refused),
        "relabelled": summary.relabelled,
    }
    session.execute(
        insert(BatchRow).values(number=batch, site=intake.site, created_at=at, actor=intake.actor, **counts)
    )
    if plan.new:
        _write_samples(session, intake, batch)
    for digest, label in plan.labels.items():
        session.execute(
            update(SampleRow).where(SampleRow.site == intake.site, SampleRow.digest == digest).values(label=label)
        )
    late = [(intake.site, OfferedLabel(digest, label), at) for digest, label in plan.labels.items()]
    keep_arrivals(session, late, at, intake.actor)
    masks = {digest: sha256_bytes(mask) for digest, mask in plan.masks.items()}
    write_masks(session, intake.site, masks, batch)
    mark_stored(session, left, batch)
    hold_back(session, held, plan.stored, batch)
    payload = {
        "batch": batch,
        "site": intake.site,
        **counts,
        "left_quarantine": len(left),
        "samples_digest": sha256_json(sorted((image.digest, image.label or "") for image in plan.new)),
        "labels_digest": sha256_json(sorted(plan.labels.items())),
        "masks_digest": sha256_json(sorted((masks | _new_masks(plan)).items())),
    }
    ledger.append(session, at, intake.actor, "intake", payload)


def _new_masks(plan: IntakePlan) -> dict[str, str]:
    addresses = {image.digest: mask_address(image) for image in plan.new}
    return {digest: address for digest, address in addresses.items() if address is not None}


def _write_samples(session: Session, intake: _Intake, batch: int) -> None:
    if session.get(SiteRow, intake.site) is None:
        position = next_number(session, SiteRow.position)
        session.execute(insert(SiteRow).values(name=intake.site, position=position))
    if intake.plan.subjects:
        rows = [
            {"site": intake.site, "pseudonym": pseudonym, "split": split.value}
            for pseudonym, split in intake.plan.subjects.items()
        ]
        session.execute(insert(SubjectRow), rows)
    samples = [_sample_row(image, intake.addresses[image.digest], batch) for image in intake.plan.new]
    session.execute(insert(SampleRow), samples)


def _knowledge(session: Session, site: str, images: Sequence[CleanImage]) -> SiteKnowledge:
    samples: dict[str, KnownSample] = {}
    subjects: dict[str, Split] = {}
    digests = list({image.digest for image in images})
    for keys in chunks(digests):
        query = select(SampleRow.digest, SampleRow.subject, SampleRow.label, SampleRow.mask, SubjectRow.split).join(
            SubjectRow, _ON_SUBJECT
        )
        for row in session.execute(query.where(SampleRow.site == site, SampleRow.digest.in_(keys))):
            samples[row.digest] = KnownSample(row.subject, row.label, row.mask)
            subjects[row.subject] = Split(row.split)
    for keys in chunks(list({image.subject for image in images})):
        split_query = select(SubjectRow.pseudonym, SubjectRow.split)
        found = session.execute(split_query.where(SubjectRow.site == site, SubjectRow.pseudonym.in_(keys)))
        subjects.update((pseudonym, Split(split)) for pseudonym, split in found.tuples())
    subject_count = func.count(SampleRow.subject.distinct()).label("subjects")
    masked = and_(SampleRow.label.is_(None), SampleRow.mask.is_not(None)).label("masked")
    count_query = select(SampleRow.label, masked, SubjectRow.split, subject_count).join(SubjectRow, _ON_SUBJECT)
    count_query = count_query.where(SampleRow.site == site).group_by(SampleRow.label, masked, SubjectRow.split)
    counts = {
        (stratum(row.label, masked=row.masked), Split(row.split)): int(row.subjects)
        for row in session.execute(count_query)
    }
    elsewhere = _splits_elsewhere(session, site, digests)
    return SiteKnowledge(samples, subjects, counts, early_labels(session, site, digests), elsewhere)


def _splits_elsewhere(session: Session, site: str, digests: Sequence[str]) -> dict[str, Split]:
    """On which side other sites have these pictures."""
    query = select(SampleRow.digest, SubjectRow.split).join(SubjectRow, _ON_SUBJECT).where(SampleRow.site != site)
    found: dict[str, Split] = {}
    for keys in chunks(digests):
        for digest, split in session.execute(query.where(SampleRow.digest.in_(keys))).tuples():
            found[digest] = least_learnt((Split(split), found.get(digest, Split(split))))
    return found


def _samples() -> Select[Any]:
    query = select(
        SampleRow.digest,
        SampleRow.site,
        SampleRow.subject,
        SampleRow.label,
        SubjectRow.split,
        SampleRow.artifact,
        SampleRow.batch,
        SampleRow.tags,
        SampleRow.pixel_statistics,
        SampleRow.acquired_at,
        SampleRow.mask,
        SampleRow.spacing_mm,
    )
    query = query.join(SubjectRow, _ON_SUBJECT)
    query = query.join(SiteRow, SiteRow.name == SampleRow.site)
    return query.order_by(SiteRow.position, SampleRow.digest)


def _sample(row: Any) -> Sample:
    return Sample(
        digest=row.digest,
        site=row.site,
        subject=row.subject,
        label=row.label,
        split=Split(row.split),
        artifact=row.artifact,
        batch=row.batch,
        tags=row.tags,
        pixel_statistics=row.pixel_statistics,
        acquired_at=row.acquired_at,
        mask=row.mask,
        spacing_mm=None if row.spacing_mm is None else tuple(row.spacing_mm),
    )


def _sample_row(image: CleanImage, artifact: str, batch: int) -> dict[str, Any]:
    return {
        "site": image.site,
        "digest": image.digest,
        "subject": image.subject,
        "label": image.label,
        "artifact": artifact,
        "mask": mask_address(image),
        "batch": batch,
        "width": image.width,
        "height": image.height,
        "depth": image.depth,
        "spacing_mm": None if image.spacing_mm is None else plain(image.spacing_mm, "spacing_mm"),
        "tags": plain(image.tags, "tags"),
        "pixel_statistics": plain(image.pixel_statistics, "pixel_statistics"),
        "acquired_at": image.acquired_at,
    }


def _batch(row: BatchRow, stored_since: int) -> Batch:
    return Batch(
        number=row.number,
        site=row.site,
        created_at=row.created_at,
        new=row.new,
        duplicates=row.duplicates,
        quarantined=max(row.quarantined - stored_since, 0),
        actor=row.actor,
        relabelled=row.relabelled,
    )


def _check_same_site(site: str, images: Sequence[CleanImage], quarantined: Sequence[QuarantineEntry]) -> None:
    strangers = ({image.site for image in images} | {entry.site for entry in quarantined}) - {site}
    if strangers:
        raise ConflictError(
            f"an intake of site {site!r} holds items of {len(strangers)} other sites (one: {min(strangers)!r}); "
            "record each site by itself"
        )
