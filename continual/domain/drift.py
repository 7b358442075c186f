"""Signals, verdicts and drift reports: what monitoring says and everyone else reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class SignalFamily(StrEnum):
    """The four families of evidence, each tested on its own."""

    ACQUISITION_TAGS = "acquisition_tags"
    PIXEL_STATISTICS = "pixel_statistics"
    EMBEDDINGS = "embeddings"
    OUTPUTS = "outputs"


class Verdict(StrEnum):
    """What happened at a site; with performance and labels at hand it leads to an action."""

    INSUFFICIENT_DATA = "insufficient_data"
    NO_DRIFT = "no_drift"
    DATA_FAULT = "data_fault"
    PREVALENCE_SHIFT = "prevalence_shift"
    COVARIATE_SHIFT = "covariate_shift"
    CONCEPT_SHIFT = "concept_shift"


class Action(StrEnum):
    """What to do about it, in the words hospital IT reads."""

    WAIT = "wait"
    NONE = "none"
    QUARANTINE = "quarantine"
    RECALIBRATE = "recalibrate"
    LOG = "log"
    UPDATE = "update"
    REQUEST_LABELS = "request_labels"
    URGENT_UPDATE = "urgent_update"


@dataclass(frozen=True, slots=True)
class Signal:
    """One test of one thing. A higher score means more drift; `p_value` in (0, 1] is already subject-level.

    `adjusted_p_value` is corrected by Holm (1979) inside the family; `alarm` compares it with the look's level.
    `e_value` is what it is worth as a bet against "nothing changed" (Vovk & Wang 2021).
    """

    family: SignalFamily
    name: str
    detector: str
    score: float
    p_value: float
    adjusted_p_value: float
    alarm: bool
    detail: Mapping[str, Any] = field(default_factory=dict)
    e_value: float = 1.0


@dataclass(frozen=True, slots=True)
class RiskEvidence:
    """What labels say about the champion since the promotion; it may be read after every label.

    `bound_low` and `bound_high` hold the metric's true value at all times together with probability `confidence`.
    `p_value` says how often chance alone lets the labels be met so much less often than on the reference; it calls a
    fall at or below `level`, this milestone's share of the error that all milestones together are allowed.
    """

    bound_low: float
    bound_high: float
    confidence: float
    p_value: float
    level: float
    milestone: int
    """Number of the milestone, from 1, that `p_value` and `level` are of: the first that called, else the newest."""
    labelled: int
    """Labelled samples that were there at the newest milestone, of which the bounds are."""

    @property
    def called(self) -> bool:
        """Whether the labels are met less often than chance allows."""
        return self.p_value <= self.level


@dataclass(frozen=True, slots=True)
class PerformanceEvidence:
    """Champion's metric on the reference and on the current window's labelled samples; None where unlabelled."""

    metric: str
    reference: float | None
    current: float | None
    labelled: int
    for_training: int = 0
    """New labelled training samples, which an update could learn."""
    estimated: float | None = None
    """What is estimated without labels; None where it cannot be told."""
    estimated_low: float | None = None
    estimated_high: float | None = None
    """Ends of the estimate's 95 % interval."""
    risk: RiskEvidence | None = None
    """What the labels say over time; None where they are too few, or nothing is known of the reference."""


@dataclass(frozen=True, slots=True)
class CaseMix:
    """Shares of the classes, in [0, 1]: known on the reference, estimated in the current window.

    `explains` says that no family of signals alarms any more against a reference drawn to the current mix, while one
    still does against as small a reference of the old mix.
    """

    classes: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    explains: bool


@dataclass(frozen=True, slots=True)
class EvidenceOverTime:
    """What all windows since the promotion say together; it may be read after every window (an e-process).

    Where nothing changes, `value` ever reaches `threshold` with probability at most 1 / threshold, however many windows
    are looked at (Ville 1939).
    """

    value: float
    """Mean of the families' evidence, 0 or more; 1 says nothing."""
    threshold: float
    families: Mapping[str, float]
    """Evidence of each family since the promotion."""
    e_values: Mapping[str, float]
    """What this window alone adds, per family; a family that could not be tested is 1."""
    windows: int
    """Windows looked at since the promotion, this one included."""
    since: int
    """The window, from 1, at which the strongest family's evidence begins."""
    called_at: int | None = None
    """The window, from 1, at which drift was first called; it stands until the next promotion. None: not called."""


@dataclass(frozen=True, slots=True)
class RollingComparison:
    """The current window against the pool of earlier ones, lagging one behind: it calls nothing, it dates a change.

    Windows count from 1 since the promotion. `differs` where a family alarms at `level`, all families together.
    """

    first: int
    last: int
    subjects: int
    p_values: Mapping[str, float]
    """Smallest adjusted p-value of each family that could be tested."""
    level: float
    differs: bool


@dataclass(frozen=True, slots=True)
class PropertyShift:
    """One tag or pixel statistic that moved, in words that a scanner's engineer reads.

    `usual` and `now` are a median with the middle 80 % of subjects, or shares of categories.
    """

    family: SignalFamily
    name: str
    usual: str
    now: str
    score: float
    """Share of subjects that moved, in [0, 1]."""
    adjusted_p_value: float
    """Corrected by Holm (1979) over all tags and pixel statistics."""
    since_window: int | None = None
    """The window since the promotion, from 1, with which it moved; None where that cannot be told."""
    since_date: datetime | None = None
    """When that window's first image was taken in."""


@dataclass(frozen=True, slots=True)
class RootCause:
    """Where to look for the cause: what moved, most first, and example images by digest, one per subject."""

    said: str
    """One sentence."""
    shifts: tuple[PropertyShift, ...]
    usual: tuple[str, ...] = ()
    """Images of the reference, drawn by lot."""
    nearest: tuple[str, ...] = ()
    """Images of the current window that look most like the reference, the nearest first."""
    farthest: tuple[str, ...] = ()
    """Those that look least like it, the farthest first."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One look at one site. `reference_site` differs from `site` when the site is new: its nearest known site."""

    site: str
    reference_site: str
    verdict: Verdict
    action: Action
    reason: str
    """One sentence a person can act on, with the numbers that led to it."""
    alpha: float
    reference_subjects: int
    current_subjects: int
    reference_samples: int
    current_samples: int
    quarantined: int
    signals: tuple[Signal, ...]
    smallest_detectable: Mapping[str, float] = field(default_factory=dict)
    """Per family, the smallest score that would have alarmed in this look: what it could have seen."""
    performance: PerformanceEvidence | None = None
    over_time: EvidenceOverTime | None = None
    """None where nothing was tested, or in a report of an earlier release."""
    case_mix: CaseMix | None = None
    """None where nothing drifted, or the reference has too few labels for an estimate."""
    rolling: RollingComparison | None = None
    """None where no drift was called, or before the third window since the promotion."""
    harmed: bool = False
    """Harm was found since the promotion and has not cleared; it then stands down to the plan's smaller margin."""
    root_cause: RootCause | None = None
    """None where nothing drifted or broke, where there is no reference, or in a report of an earlier release."""
    projection: str | None = None
    """Address of the map of embeddings in the artifact store (`continual.domain.drift_views.Projection` as JSON)."""
    adapter: str = ""
    version: int | None = None
    """The champion whose reference and outputs were looked at."""
    batches: tuple[int, ...] | None = None
    """The intake batches of the site that the current window is made of."""
    created_at: datetime | None = None
    id: int | None = None
