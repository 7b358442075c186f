"""Labels that come late: read, matched to samples and predictions, and what they say of the versions that predicted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from continual.domain.predictions import LabelledPrediction, Performance, performance_of
from continual.imaging import read_label_manifest
from flows.workplace import Workplace, check_adapter
from registry import LabelFate, LabelOutcome, OfferedLabel


@dataclass(frozen=True, slots=True)
class NotTaken:
    """A row of the manifest, from 1, of which nothing was kept, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What a manifest of labels did. `performance` is of the predictions that its labels belong to, made then.

    `new` labels were kept now, `known` ones before. `unknown` rows name pictures that nobody has, `quarantined` ones
    could not be used. `other_classes` are labels that a version which predicted does not know: kept, and not scored.
    """

    rows: int
    new: int
    known: int
    unknown: tuple[NotTaken, ...]
    quarantined: tuple[NotTaken, ...]
    performance: tuple[Performance, ...]
    other_classes: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def take_labels(workplace: Workplace, manifest: Path, adapter: str | None = None) -> LabelReport:
    """Keep the labels of a manifest, and judge with them what versions (of one adapter if asked) predicted then.

    Running it again changes nothing. Raises ManifestError when the table cannot be used, NotFoundError for an adapter
    that is not there.
    """
    check_adapter(workplace, adapter)
    listed = read_label_manifest(manifest)
    offered = [OfferedLabel(row.digest, row.label, row.site, row.labelled_at) for row in listed.rows]
    outcomes = workplace.registry.late_labels.add(offered, workplace.actor) if offered else []
    met = list(zip([row.position for row in listed.rows], outcomes, strict=True))
    refused = [NotTaken(at, str(one.reason)) for at, one in met if one.fate is LabelFate.REFUSED]
    faulty = [NotTaken(fault.position, fault.reason) for fault in listed.faults]
    labelled = _labelled_by(workplace.registry.predictions.labelled(adapter), outcomes)
    return LabelReport(
        rows=len(listed.rows) + len(listed.faults),
        new=_count(outcomes, LabelFate.KEPT),
        known=_count(outcomes, LabelFate.KNOWN),
        unknown=tuple(NotTaken(at, str(one.reason)) for at, one in met if one.fate is LabelFate.UNKNOWN_PICTURE),
        quarantined=tuple(sorted(refused + faulty, key=lambda each: each.row)),
        performance=tuple(performance_of(labelled, by_site=True)),
        other_classes=tuple(sorted({each.label for each in labelled if each.label not in each.prediction.scores})),
    )


def performance_over_time(
    workplace: Workplace, adapter: str, site: str | None = None, as_of: datetime | None = None
) -> list[Performance]:
    """By version and month of prediction, from labels that were known `as_of` then (None: now)."""
    check_adapter(workplace, adapter)
    return performance_of(workplace.registry.predictions.labelled(adapter, site, as_of), by_month=True)


def _labelled_by(labelled: Sequence[LabelledPrediction], outcomes: Sequence[LabelOutcome]) -> list[LabelledPrediction]:
    digests = {each.offered.digest for each in outcomes if each.fate in (LabelFate.KEPT, LabelFate.KNOWN)}
    return [each for each in labelled if each.prediction.digest in digests]


def _count(outcomes: Sequence[LabelOutcome], fate: LabelFate) -> int:
    return sum(one.fate is fate for one in outcomes)
