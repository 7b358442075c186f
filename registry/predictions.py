"""The prediction store: what each version first said of a picture, and the labels that came for it.

Knows nothing of who predicts or how a prediction is judged. Nothing here enters the ledger: a prediction changes
nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias, final

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session

from continual.domain.adapters import records_learnt
from continual.domain.predictions import NOBODYS, LabelledPrediction, Prediction
from continual.domain.samples import Split
from registry.database import Database, chunks
from registry.holds import held_batches
from registry.plain_json import check_name, check_text, plain
from registry.tables import BatchRow, LateLabelRow, PredictionRow, SampleRow, SubjectRow, VersionRow

Predictions: TypeAlias = list[Prediction]
Labelled: TypeAlias = list[LabelledPrediction]
Key: TypeAlias = tuple[str, int, str, str]


@final
class PredictionStore:
    """Predictions by adapter, version, site and picture; the first one stays."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, predictions: Sequence[Prediction], *, of_samples: bool = False) -> int:
        """Keep those that are the first of their version on their picture and site; how many were.

        With `of_samples`, only those whose picture is a sample of the site: it may have been erased meanwhile. All or
        none: RegistryError on a score that is not finite, or text that no database can hold.
        """
        rows: dict[Key, dict[str, Any]] = {}
        for said in predictions:
            rows.setdefault(_key(said), _row(said))
        if not rows:
            return 0
        with self._database.read() as session:
            if len(_stored(session, rows)) == len(rows):
                return 0  # pictures are sent again and again: that need not wait for other writers
        with self._database.write() as session:
            stored = _stored(session, rows)
            new = [row for key, row in rows.items() if key not in stored]
            if of_samples:
                known = _known_samples(session, new)
                new = [row for row in new if (row["site"], row["digest"]) in known]
            if new:
                session.execute(insert(PredictionRow), new)
        return len(new)

    def said(self, adapter: str, version: int, site: str, digests: Sequence[str]) -> Mapping[str, Prediction]:
        """What a version said of some of a site's pictures, by digest; those it never saw are left out."""
        found: dict[str, Prediction] = {}
        query = select(PredictionRow).where(
            PredictionRow.adapter == adapter, PredictionRow.version == version, PredictionRow.site == site
        )
        with self._database.read() as session:
            for keys in chunks(list(dict.fromkeys(digests))):
                for row in session.scalars(query.where(PredictionRow.digest.in_(keys))):
                    found[row.digest] = _prediction(row)
        return found

    def list(self, adapter: str | None = None, site: str | None = None) -> Predictions:
        """Predictions in the order in which they were made."""
        query = select(PredictionRow)
        if adapter is not None:
            query = query.where(PredictionRow.adapter == adapter)
        if site is not None:
            query = query.where(PredictionRow.site == site)
        query = query.order_by(PredictionRow.predicted_at, PredictionRow.site, PredictionRow.digest)
        with self._database.read() as session:
            return [_prediction(row) for row in session.scalars(query)]

    def labelled(self, adapter: str | None = None, site: str | None = None, as_of: datetime | None = None) -> Labelled:
        """Predictions whose picture has a label, in the order in which they were made, with the label.

        With `as_of` only what had been predicted and was known by then. A prediction without a site has the label that
        all sites give its picture; where they differ it has none. Of what a version said of one picture of a site, with
        and without naming it, only the first counts. With `site` only pictures that are that site's. A picture of a
        batch that is held now has no label: nothing is judged by it.
        """
        with self._database.read() as session:
            said = session.scalars(_made(adapter, as_of)).all()
            labels = _labels(session, sorted({row.digest for row in said}))
            records = _records(session, {(row.adapter, row.version) for row in said})
        found: dict[Key, LabelledPrediction] = {}
        for row in said:
            known = _label_of(row, labels, as_of)
            if known is None:
                continue
            place = known.site or row.site
            taken_in = known.batch is not None and known.split == Split.TRAIN.value
            record = records[row.adapter, row.version]
            trained_on = taken_in and records_learnt(record, known.site, int(known.batch or 0))
            one = LabelledPrediction(_prediction(row), known.label, known.at, known.subject, trained_on, place)
            found.setdefault((row.adapter, row.version, place, row.digest), one)
        return [each for each in _each_once(found) if site in (None, each.site)]


@dataclass(frozen=True, slots=True)
class _Known:
    """A picture's label at one site, since when it is known, and whose it is, where the picture was taken in."""

    site: str
    label: str
    at: datetime
    subject: str | None = None
    split: str | None = None
    batch: int | None = None


def _labels(session: Session, digests: Sequence[str]) -> dict[str, list[_Known]]:
    """Known labels of some pictures by digest, late or with the picture; none where its batch is held."""
    found: dict[str, list[_Known]] = {}
    on_subject = (SubjectRow.site == SampleRow.site) & (SubjectRow.pseudonym == SampleRow.subject)
    query = select(SampleRow, SubjectRow.split, BatchRow.created_at).join(SubjectRow, on_subject)
    query = query.join(BatchRow, BatchRow.number == SampleRow.batch)
    held = set(session.scalars(held_batches()))
    for keys in chunks(digests):
        rows = session.scalars(select(LateLabelRow).where(LateLabelRow.digest.in_(keys)))
        late = {(row.site, row.digest): row for row in rows}
        for row, split, created_at in session.execute(query.where(SampleRow.digest.in_(keys))).tuples():
            came = late.pop((row.site, row.digest), None)
            if row.batch in held:
                # Else a label that came before the picture, without a site, would still judge it.
                late.pop((NOBODYS, row.digest), None)
                continue
            label = row.label or (came.label if came else None)
            if label is not None:
                at = came.arrived_at if came else created_at
                known = _Known(row.site, label, at, row.subject, split, row.batch)
                found.setdefault(row.digest, []).append(known)
        for each in late.values():
            found.setdefault(each.digest, []).append(_Known(each.site, each.label, each.arrived_at))
    return found


def _each_once(found: Mapping[Key, LabelledPrediction]) -> Labelled:
    """All but those without a site of pictures that stand there with one."""
    placed = {(adapter, version, digest) for adapter, version, place, digest in found if place != NOBODYS}
    return [
        each
        for (adapter, version, place, digest), each in found.items()
        if place != NOBODYS or (adapter, version, digest) not in placed
    ]


def _label_of(
    row: PredictionRow, labels: Mapping[str, Sequence[_Known]], as_of: datetime | None = None
) -> _Known | None:
    """The label as known then. Where the picture was taken in stands before who labelled it without naming a site."""
    known = [each for each in labels.get(row.digest, ()) if as_of is None or each.at <= as_of]
    if row.site != NOBODYS:
        # A label that came without a site is its picture's, too, whoever asked.
        own = [each for each in known if each.site == row.site]
        return next(iter(own or [each for each in known if each.site == NOBODYS]), None)
    if len({each.label for each in known}) != 1:
        return None
    chosen = min(known, key=lambda each: (each.batch is None, each.site == NOBODYS, each.at, each.site))
    return replace(chosen, at=min(each.at for each in known))


def _made(adapter: str | None, as_of: datetime | None) -> Select[tuple[PredictionRow]]:
    query = select(PredictionRow)
    if adapter is not None:
        query = query.where(PredictionRow.adapter == adapter)
    if as_of is not None:
        query = query.where(PredictionRow.predicted_at <= as_of)
    return query.order_by(PredictionRow.predicted_at, PredictionRow.site, PredictionRow.digest)


def _records(session: Session, versions: Collection[tuple[str, int]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """What each version's record says; nothing of one that is not stored."""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for adapter, number in versions:
        row = session.get(VersionRow, (adapter, number))
        found[adapter, number] = {} if row is None else row.record
    return found


def _key(said: Prediction) -> Key:
    return said.adapter, said.version, said.site, said.digest


def _row(said: Prediction) -> dict[str, Any]:
    return {
        "adapter": check_name(said.adapter, "adapter"),
        "version": said.version,
        "site": said.site if said.site == NOBODYS else check_text(said.site, "site"),
        "digest": check_text(said.digest, "digest"),
        "scores": plain(said.scores, "scores"),
        "predicted_at": said.predicted_at,
    }


def _stored(session: Session, keys: Iterable[Key]) -> set[Key]:
    wanted = set(keys)
    found: set[Key] = set()
    query = select(PredictionRow.adapter, PredictionRow.version, PredictionRow.site, PredictionRow.digest)
    for digests in chunks(sorted({key[3] for key in wanted})):
        found.update(session.execute(query.where(PredictionRow.digest.in_(digests))).tuples())
    return found & wanted


def _known_samples(session: Session, rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Site and digest of those samples that predictions are of."""
    found: set[tuple[str, str]] = set()
    query = select(SampleRow.site, SampleRow.digest)
    for digests in chunks(sorted({row["digest"] for row in rows})):
        found.update(session.execute(query.where(SampleRow.digest.in_(digests))).tuples())
    return found


def _prediction(row: PredictionRow) -> Prediction:
    return Prediction(row.adapter, row.version, row.site, row.digest, row.scores, row.predicted_at)
