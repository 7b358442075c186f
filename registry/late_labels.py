"""The store of labels that come late: matched to samples and predictions, never written over another label.

Knows nothing of files or of how a prediction is judged. A label's clock is the registry's own: what a sender says of
when it was made is kept beside it, and decides nothing about what was known when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias, final

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from continual.domain.digests import sha256_json
from continual.domain.predictions import NOBODYS
from registry import ledger
from registry.database import Database, chunks
from registry.plain_json import check_text
from registry.tables import LateLabelRow, PredictionRow, SampleRow


@dataclass(frozen=True, slots=True)
class OfferedLabel:
    """A label as it was sent for a picture's content; `site` None lets the registry find whose picture it is."""

    digest: str
    label: str
    site: str | None = None
    labelled_at: datetime | None = None
    """Aware; None means now. Kept to the month."""


class LabelFate(StrEnum):
    """What became of an offered label."""

    KEPT = "kept"
    KNOWN = "known"
    UNKNOWN_PICTURE = "unknown"
    REFUSED = "quarantined"


@dataclass(frozen=True, slots=True)
class LabelOutcome:
    """What became of one offered label, at which site, and why where it was not kept."""

    offered: OfferedLabel
    fate: LabelFate
    site: str | None = None
    reason: str | None = None


LateLabels: TypeAlias = Mapping[str, datetime]
Outcomes: TypeAlias = list[LabelOutcome]


@final
class LateLabelStore:
    """Labels that came after their pictures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, offered: Sequence[OfferedLabel], actor: str) -> Outcomes:
        """What became of each label, in the order given; those that are kept are kept together.

        A label is kept where its picture is a sample without a label, which gets it, or was predicted for. One that
        contradicts a known label, or another of the same call, is refused, as is one made in the future or before the
        first prediction for its picture. The same again changes nothing.
        """
        check_text(actor, "actor")
        for each in offered:
            check_text(each.label, "label")
            check_text(each.digest, "digest")
        with self._database.write() as session:
            now = ledger.moment(session)
            pictures = _pictures(session, sorted({each.digest for each in offered}))
            found = [_outcome(each, pictures.get(each.digest, {}), now) for each in offered]
            found = _without_contradictions(found)
            kept = {(each.site or NOBODYS, each.offered.digest): each for each in found if each.fate is LabelFate.KEPT}
            if kept:
                _write(session, kept, now, actor)
            return found

    def arrivals(self, site: str) -> LateLabels:
        """When the late labels of a site came, by the digest of their picture."""
        query = select(LateLabelRow.digest, LateLabelRow.arrived_at).where(LateLabelRow.site == site)
        with self._database.read() as session:
            return dict(session.execute(query).tuples().all())


@dataclass(slots=True)
class _Picture:
    """What one site, or nobody, knows of a picture."""

    sample: bool = False
    label: str | None = None
    late: str | None = None
    predicted_at: datetime | None = None

    @property
    def settled(self) -> bool:
        """Nothing is left to do. A sample may have no label yet where nobody's is known: the same again gives it."""
        return (self.label if self.sample else self.late) is not None


def _pictures(session: Session, digests: Sequence[str]) -> dict[str, dict[str, _Picture]]:
    """By digest, then by site."""
    found: dict[str, dict[str, _Picture]] = {}

    def of(site: str, digest: str) -> _Picture:
        return found.setdefault(digest, {}).setdefault(site, _Picture())

    for keys in chunks(digests):
        samples = select(SampleRow.site, SampleRow.digest, SampleRow.label).where(SampleRow.digest.in_(keys))
        for site, digest, label in session.execute(samples).tuples():
            picture = of(site, digest)
            picture.sample, picture.label = True, label
        said = select(PredictionRow.site, PredictionRow.digest, func.min(PredictionRow.predicted_at))
        said = said.where(PredictionRow.digest.in_(keys)).group_by(PredictionRow.site, PredictionRow.digest)
        for site, digest, at in session.execute(said).tuples():
            of(site, digest).predicted_at = at
        late = select(LateLabelRow.site, LateLabelRow.digest, LateLabelRow.label)
        for site, digest, label in session.execute(late.where(LateLabelRow.digest.in_(keys))).tuples():
            of(site, digest).late = label
    return found


def _outcome(offered: OfferedLabel, sites: Mapping[str, _Picture], now: datetime) -> LabelOutcome:
    named = [site for site in sites if site != NOBODYS]
    if offered.site is None and len(named) > 1:
        return LabelOutcome(
            offered,
            LabelFate.REFUSED,
            reason=f"{len(named)} sites have this picture ({', '.join(sorted(named))}); fill in the column 'site'",
        )
    site = offered.site or next(iter(named), NOBODYS)
    known = sites.get(site) or sites.get(NOBODYS)
    if known is None:
        where = f" at site {offered.site!r}" if offered.site else ""
        reason = f"no sample and no prediction has this picture{where}; ingest it, or check digest and site"
        return LabelOutcome(offered, LabelFate.UNKNOWN_PICTURE, offered.site, reason)
    fault = _clock_fault(offered.labelled_at, [each.predicted_at for each in sites.values()], now)
    stored = known.label or known.late
    if fault is None and stored not in (None, offered.label):
        fault = (
            f"label {offered.label!r} contradicts {stored!r}, which is stored for the same picture and stays; "
            "correct the manifest's label"
        )
    if fault is not None:
        return LabelOutcome(offered, LabelFate.REFUSED, site, fault)
    return LabelOutcome(offered, LabelFate.KNOWN if known.settled else LabelFate.KEPT, site)


def _clock_fault(labelled_at: datetime | None, predicted: Sequence[datetime | None], now: datetime) -> str | None:
    if labelled_at is None:
        return None
    if labelled_at > now:
        return f"labelled_at {labelled_at.isoformat()} lies in the future; correct it or the clock that wrote it"
    first = min((at for at in predicted if at is not None), default=None)
    if first is not None and labelled_at < first:
        return (
            f"labelled_at {labelled_at.isoformat()} lies before the prediction of {first.isoformat()}: clocks do not "
            "go backwards; correct it, or leave it blank for now"
        )
    return None


def _without_contradictions(found: Sequence[LabelOutcome]) -> list[LabelOutcome]:
    """Of two labels for one picture in one call only the sender can say which is meant; a repeated one is known."""
    offered: dict[tuple[str | None, str], set[str]] = {}
    for each in found:
        offered.setdefault((each.site, each.offered.digest), set()).add(each.offered.label)
    seen: set[tuple[str | None, str]] = set()
    checked = []
    for each in found:
        key = (each.site, each.offered.digest)
        if each.fate is LabelFate.KEPT and len(offered[key]) > 1:
            reason = "another row has another label for the same picture; keep the right one in the manifest"
            checked.append(LabelOutcome(each.offered, LabelFate.REFUSED, each.site, reason))
        elif each.fate is LabelFate.KEPT and key in seen:
            checked.append(LabelOutcome(each.offered, LabelFate.KNOWN, each.site))
        else:
            checked.append(each)
        seen.add(key)
    return checked


def _write(session: Session, kept: Mapping[tuple[str, str], LabelOutcome], now: datetime, actor: str) -> None:
    for (site, digest), each in kept.items():
        whose = (SampleRow.site == site, SampleRow.digest == digest, SampleRow.label.is_(None))
        session.execute(update(SampleRow).where(*whose).values(label=each.offered.label))
    keep_arrivals(
        session,
        [(site, each.offered, _month(each.offered.labelled_at) or now) for (site, _), each in kept.items()],
        now,
        actor,
    )
    payload = {
        "labels": len(kept),
        "sites": sorted({site for site, _ in kept}),
        "labels_digest": sha256_json(
            sorted((site, digest, each.offered.label) for (site, digest), each in kept.items())
        ),
    }
    ledger.append(session, now, actor, "labels_arrived", payload)


def _month(made: datetime | None) -> datetime | None:
    """A full date identifies: what a sender says of when a label was made is kept to the month."""
    return None if made is None else made.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def early_labels(session: Session, site: str, digests: Sequence[str]) -> dict[str, str]:
    """Labels that came before their pictures, by digest: the site's own, or one that named no site."""
    found: dict[str, str] = {}
    # Nobody's first: what names the site is written over it.
    for whose in (NOBODYS, site):
        for keys in chunks(digests):
            query = select(LateLabelRow.digest, LateLabelRow.label)
            query = query.where(LateLabelRow.site == whose, LateLabelRow.digest.in_(keys))
            found.update(session.execute(query).tuples().all())
    return found


def keep_arrivals(
    session: Session, labels: Sequence[tuple[str, OfferedLabel, datetime]], now: datetime, actor: str
) -> None:
    """Note since when labels are known: site, label and when it was made. One that is noted already stays as it is."""
    rows = {
        (site, each.digest): {
            "site": site,
            "digest": each.digest,
            "label": each.label,
            "actor": actor,
            "labelled_at": made,
            "arrived_at": now,
        }
        for site, each, made in labels
    }
    for digests in chunks(sorted({digest for _, digest in rows})):
        stored = select(LateLabelRow.site, LateLabelRow.digest).where(LateLabelRow.digest.in_(digests))
        for key in session.execute(stored).tuples():
            rows.pop((key[0], key[1]), None)
    if rows:
        session.execute(insert(LateLabelRow), list(rows.values()))
