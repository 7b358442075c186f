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
    """What happened at a site; the design's table maps each to one action."""

    INSUFFICIENT_DATA = "insufficient_data"
    NO_DRIFT = "no_drift"
    DATA_FAULT = "data_fault"
    PREVALENCE_SHIFT = "prevalence_shift"
    COVARIATE_SHIFT = "covariate_shift"
    CONCEPT_SHIFT = "concept_shift"


class Action(StrEnum):
    """What to do about it: one action per verdict, in the words hospital IT reads."""

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
    """

    family: SignalFamily
    name: str
    detector: str
    score: float
    p_value: float
    adjusted_p_value: float
    alarm: bool
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PerformanceEvidence:
    """Champion's metric on the reference and on the current window's labelled samples; None where unlabelled."""

    metric: str
    reference: float | None
    current: float | None
    labelled: int


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
    created_at: datetime | None = None
    id: int | None = None
