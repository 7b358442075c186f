"""What a champion predicted, kept, and held against labels that come; knows nothing of when to look or of verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.drift import PerformanceEvidence
from continual.domain.metrics import METRICS
from continual.domain.predictions import Prediction
from continual.domain.samples import Sample, Split
from continual.learning import VersionNetwork, probabilities, site_outcomes
from flows.updates.adapter_context import AdapterContext
from monitoring import Outcomes, Window, risk_evidence

ONE_CLASS = ""
"""Class of every outcome of masks: Dice is a mean over classes already."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownSite:
    """A site's held-out samples and what the champion makes of them."""

    samples: Sequence[Sample]
    window: Window


def keep_predictions(context: AdapterContext, champion: AdapterVersion, seen: Window) -> int:
    """Keep what the champion says of a window's images, of each the first time; how many are new. No masks."""
    if context.options.task is not Task.CLASSIFICATION or seen.outputs is None:
        return 0
    now = datetime.now(UTC)
    rows = [dict(zip(seen.classes, map(float, row), strict=True)) for row in seen.outputs]
    said = [
        Prediction(context.name, champion.number, seen.site, digest, scores, now)
        for digest, scores in zip(seen.samples, rows, strict=True)
    ]
    return context.registry.predictions.add(said, of_samples=True)


def measured_performance(
    context: AdapterContext,
    network: VersionNetwork,
    champion: AdapterVersion,
    current: Sequence[Sample],
    known: Mapping[str, KnownSite],
) -> PerformanceEvidence:
    """Measured on labelled new samples outside the test split; the champion has trained on none of them.

    The reference is the site's own held-out samples; of a new site, and for masks of a site without labels, the mean of
    the champion's validation scores, and for the evidence over time the held-out samples of all sites.
    """
    task, metric, plan = context.options.task, METRICS[context.options.task], context.options.plan
    held = [s for s in current if s.labelled_for(task) and s.split is not Split.TEST]
    for_training = sum(sample.split is Split.TRAIN for sample in held)
    if task is Task.CLASSIFICATION:
        held = [sample for sample in held if sample.label in network.classes]
    validation = champion.record["validation"]
    reference = sum(validation.values()) / len(validation) if validation else None
    site = current[0].site if current else ""
    own = {name: each for name, each in known.items() if name == site}
    if not held:
        # The estimate without labels is on the site's own scale.
        before = _reference_outcomes(context, network, own if task is Task.CLASSIFICATION else {})
        return PerformanceEvidence(metric, before.balanced if before.classes else reference, None, 0, for_training)
    said = _outcomes(context, network, champion, _as_they_became_known(context, site, held))
    # Segmenting the reference costs as much as a look: only where masks suffice for a milestone.
    asked = task is Task.CLASSIFICATION or len(held) >= plan.minimum_labelled
    before = _reference_outcomes(context, network, (own or known) if asked else {})
    shared = sorted(set(before.classes) & set(said.classes))
    if own and shared:
        reference = before.of(shared).balanced
        said = said.of(shared)
    risk = risk_evidence(before, said, plan.minimum_labelled, plan.alpha, plan.seed)
    return PerformanceEvidence(metric, reference, said.balanced, len(said.met), for_training, risk=risk)


def _as_they_became_known(context: AdapterContext, site: str, samples: Sequence[Sample]) -> list[Sample]:
    """In the order in which the registry came to know their labels, so that nothing read before moves."""
    came = {batch.number: batch.created_at for batch in context.registry.samples.batches(site)}
    # Of a held batch nothing was known until it was released.
    came |= {hold.batch: hold.released_at for hold in context.registry.holds.list(site) if hold.released_at is not None}
    late = context.registry.late_labels.arrivals(site)

    def known_at(sample: Sample) -> tuple[datetime, int, str]:
        arrived = came[sample.batch]
        return max(late.get(sample.digest, arrived), arrived), sample.batch, sample.digest

    return sorted(samples, key=known_at)


def _outcomes(
    context: AdapterContext, network: VersionNetwork, champion: AdapterVersion, samples: Sequence[Sample]
) -> Outcomes:
    """How the champion's predictions met the labels: those it made then, where it did, else made now."""
    if context.options.task is Task.SEGMENTATION:
        return _of_masks(context, network, samples)
    digests = [sample.digest for sample in samples]
    then = context.registry.predictions.said(context.name, champion.number, samples[0].site, digests)
    predicted = {digest: said.predicted for digest, said in then.items()}
    others = [digest for digest in digests if digest not in predicted]
    if others:
        scores = probabilities(network, context.cache, others, lambda _done: None)
        predicted |= {d: network.classes[at] for d, at in zip(others, scores.argmax(axis=1), strict=True)}
    met = np.array([float(predicted[sample.digest] == sample.label) for sample in samples])
    return Outcomes(_subjects(samples), tuple(str(sample.label) for sample in samples), met)


def _reference_outcomes(context: AdapterContext, network: VersionNetwork, known: Mapping[str, KnownSite]) -> Outcomes:
    if context.options.task is Task.SEGMENTATION:
        masked = [s for each in known.values() for s in each.samples if s.labelled_for(Task.SEGMENTATION)]
        return _of_masks(context, network, masked)
    subjects, classes, met = [], [], []
    for name, each in known.items():
        seen = each.window
        if seen.outputs is None or seen.labels is None:
            continue
        for row in np.flatnonzero(seen.labelled):
            subjects.append(f"{name}/{seen.subjects[row]}")
            classes.append(seen.classes[seen.labels[row]])
            met.append(float(seen.outputs[row].argmax() == seen.labels[row]))
    return Outcomes(tuple(subjects), tuple(classes), np.array(met))


def _of_masks(context: AdapterContext, network: VersionNetwork, samples: Sequence[Sample]) -> Outcomes:
    if not samples:
        return Outcomes((), (), np.empty(0))
    found, _ = site_outcomes(network, context.cache, samples[0].site, samples, lambda _done: None)
    return Outcomes(_subjects(samples), (ONE_CLASS,) * len(samples), np.clip(np.array(found.scores), 0, 1))


def _subjects(samples: Sequence[Sample]) -> tuple[str, ...]:
    return tuple(f"{sample.site}/{sample.subject}" for sample in samples)
