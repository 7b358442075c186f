"""Adapter versions, aliases and gate findings; knows nothing of how one is trained or stored."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

CHAMPION = "champion"
LORA, CLOSED_FORM = "lora", "closed_form"
"""Kinds of version: LoRA weights on a backbone, or a closed form on its frozen features."""


class Task(StrEnum):
    """What an adapter's versions answer about an image: one class for all of it, or one class for every pixel."""

    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"


class AdapterState(StrEnum):
    """A version starts as candidate; the gate makes it accepted or rejected, once."""

    CANDIDATE = "candidate"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class SiteOutcomes:
    """What a model said on one site's frozen test split, sample by sample, in one fixed order.

    In classification `subjects`, `labels` and `predicted` have equal length; labels and predictions are class names.
    In segmentation `labels` and `predicted` are empty, and `scores` holds each sample's metric in [0, 1] (Dice).
    """

    site: str
    subjects: tuple[str, ...]
    labels: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    chance: float = 0.0
    """Beside `scores`: the mean score of the best constant answer on these samples (`metrics.chance_dice`)."""

    def of_classes(self, classes: Collection[str]) -> "SiteOutcomes":
        """The outcomes of samples whose label is one of `classes`; scored ones as they are."""
        if self.scores:
            return self
        kept = [place for place, label in enumerate(self.labels) if label in classes]
        subjects, labels, predicted = (
            tuple(part[place] for place in kept) for part in (self.subjects, self.labels, self.predicted)
        )
        return replace(self, subjects=subjects, labels=labels, predicted=predicted)


@dataclass(frozen=True, slots=True)
class GateFinding:
    """The gate's reading of one site: candidate minus champion, in units of the metric.

    `lower_bound` is the one-sided bootstrap bound over subjects at the plan's confidence; `limit` is what it (or, for
    a new site, the gain) had to exceed. `role` is "past" for a site the champion was accepted on, else "new".
    """

    site: str
    role: str
    champion: float | None
    candidate: float
    difference: float
    lower_bound: float
    limit: float
    passed: bool
    subjects: int
    reason: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's verdict on a candidate; accepted only when every finding passed."""

    accepted: bool
    findings: tuple[GateFinding, ...]
    margin: float
    confidence: float


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What `registry` needs to register a candidate. `record` is plain JSON: matrix row, seeds, digests, hardware."""

    adapter: str
    parent: int | None
    strategy: str
    backbone_digest: str
    trained_on: tuple[str, ...]
    """Sites in the order learnt, the newest last."""
    classes: tuple[str, ...]
    metric: str
    metrics: Mapping[str, float]
    """Metric per site on the test split: one row of the result matrix."""
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One immutable, numbered version of an adapter. `files` maps file name to (SHA-256, size in bytes)."""

    adapter: str
    number: int
    parent: int | None
    digest: str
    """SHA-256 of the sorted list of (file name, file digest): names the whole folder."""
    strategy: str
    state: AdapterState
    backbone_digest: str
    trained_on: tuple[str, ...]
    classes: tuple[str, ...]
    metric: str
    metrics: Mapping[str, float]
    files: Mapping[str, tuple[str, int]]
    created_at: datetime
    gate: GateDecision | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def was_judged_on(self, site: str, digest: str, samples: int) -> bool:
        """Whether its metric at a site is of the test split with that digest; by its size, where no more was kept."""
        own, count = self.judged_on(site)
        return own == digest if own and digest else count == samples

    def judged_on(self, site: str) -> tuple[str, int]:
        """Digest of the test split that its metric at a site is of, "" where none was kept, and how many samples."""
        digest = self.record.get("tested", {}).get(site, "")
        return str(digest), int(self.record.get("scores", {}).get(site, {}).get("samples", 0))


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One append to an alias's history: who moved it, when, from where, to where and why."""

    adapter: str
    alias: str
    from_version: int | None
    to_version: int
    actor: str
    reason: str
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of the append-only ledger; `digest` covers the entry and the digest before it."""

    position: int
    recorded_at: datetime
    actor: str
    event: str
    payload: Mapping[str, Any]
    previous_digest: str
    digest: str


def of_volumes(record: Mapping[str, Any]) -> bool:
    """Whether a version looks at volumes, by its record; else at pictures."""
    return "volume" in record.get("network", {})


BOX_PROMPT = "box"
"""A record's `prompt` where a version is asked with boxes; other versions are asked with nothing but the image."""


def asked_with_boxes(record: Mapping[str, Any]) -> bool:
    """Whether the version of this record takes a box for each class."""
    return bool(record.get("network", {}).get("prompt") == BOX_PROMPT)


def kind_of(record: Mapping[str, Any]) -> str:
    """The kind of network that a version's record is of; a record that does not tell is of LoRA weights."""
    return str(record.get("network", {}).get("kind", LORA))


def records_learnt(record: Mapping[str, Any], site: str, batch: int) -> bool:
    """Whether a version's record says that it, or an ancestor, learnt an intake batch of a site.

    It learnt all that the site had brought up to its last batch, but for batches that were held at the time.
    """
    # Versions of the first release held nothing back.
    left_out = record.get("held_batches", {}).get(site, ())
    return bool(batch <= record.get("learnt_batches", {}).get(site, 0) and batch not in left_out)
