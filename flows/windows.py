"""Windows for a drift look: which samples are reference and which are current, and what the champion says on them."""

from collections.abc import Sequence

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.drift import DriftReport, PerformanceEvidence
from continual.domain.metrics import METRICS, task_of
from continual.domain.samples import Sample, Split
from continual.learning import VersionNetwork, probabilities, site_outcomes
from flows.adapter_context import AdapterContext
from flows.letting_go import learnable
from flows.progress import track
from monitoring import Intake, Window, look


def learnt_batch(champion: AdapterVersion, site: str) -> int:
    """Number of the last intake batch of `site` that the version was trained on; 0 for a site it never saw."""
    return int(champion.record["learnt_batches"].get(site, 0))


def new_samples(context: AdapterContext, champion: AdapterVersion | None, site: str) -> list[Sample]:
    """Samples of `site` that arrived after the champion learnt it; all of them for a new site."""
    learnt = learnt_batch(champion, site) if champion else 0
    return learnable(context, [sample for sample in context.registry.samples.list(site) if sample.batch > learnt])


def new_labels(champion: AdapterVersion, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Labels among the samples that the version does not tell apart, in alphabetical order; none for one of masks."""
    if task_of(champion.metric) is Task.SEGMENTATION:
        return ()
    return tuple(sorted({sample.label for sample in samples if sample.label is not None} - set(champion.classes)))


def look_at_site(context: AdapterContext, champion: AdapterVersion, site: str) -> DriftReport | None:
    """Compare a site's new samples with the champion's reference windows; None when nothing new arrived.

    References are held-out subjects only: on samples it was trained on, the champion is surer than on any new ones.
    """
    current = new_samples(context, champion, site)
    offered = _intake(context, champion, site)
    if not current and not offered.quarantined:
        return None
    held_out = {name: _held_out(context, champion, name) for name in champion.trained_on}
    # A site may have no held-out subject left: they can be erased.
    references = {name: samples for name, samples in held_out.items() if samples}
    everything = [*current, *(sample for samples in references.values() for sample in samples)]
    context.fill(everything, 1, f"{site}: activations")
    if not current:
        return None
    network = context.network_of(champion)
    windows = [_window(context, network, name, samples) for name, samples in references.items()]
    task = context.options.task
    labelled = [sample for sample in current if sample.labelled_for(task) and sample.split is Split.TRAIN]
    report = look(
        windows,
        _window(context, network, site, current),
        context.options.plan,
        offered,
        _performance(context, network, champion, current),
        len(labelled),
    )
    return context.registry.drift.add(report, context.workplace.actor)


def _held_out(context: AdapterContext, champion: AdapterVersion, site: str) -> list[Sample]:
    learnt = learnt_batch(champion, site)
    stored = context.registry.samples.list(site)
    return [sample for sample in stored if sample.batch <= learnt and sample.split is not Split.TRAIN]


def _window(context: AdapterContext, network: VersionNetwork, site: str, samples: Sequence[Sample]) -> Window:
    digests = [sample.digest for sample in samples]
    return Window(
        site=site,
        subjects=tuple(sample.subject for sample in samples),
        embeddings=context.cache.features(digests),
        outputs=probabilities(network, context.cache, digests, track(f"{site}: outputs", len(digests))),
        tags=tuple(sample.tags for sample in samples),
        pixel_statistics=tuple(sample.pixel_statistics for sample in samples),
    )


def _performance(
    context: AdapterContext, network: VersionNetwork, champion: AdapterVersion, current: Sequence[Sample]
) -> PerformanceEvidence:
    """Measured on labelled new samples outside the test split; the champion has trained on none of them."""
    task, metric = context.options.task, METRICS[context.options.task]
    held = [s for s in current if s.labelled_for(task) and s.split is not Split.TEST]
    if task is Task.CLASSIFICATION:
        held = [sample for sample in held if sample.label in network.classes]
    validation = champion.record["validation"]
    reference = sum(validation.values()) / len(validation) if validation else None
    if not held:
        return PerformanceEvidence(metric, reference, None, 0)
    _, score = site_outcomes(network, context.cache, held[0].site, held, lambda _done: None)
    return PerformanceEvidence(metric, reference, score.value, len(held))


def _intake(context: AdapterContext, champion: AdapterVersion, site: str) -> Intake:
    learnt = learnt_batch(champion, site)
    batches = [batch for batch in context.registry.samples.batches(site) if batch.number > learnt]
    quarantined = sum(batch.quarantined for batch in batches)
    return Intake(offered=quarantined + sum(batch.new + batch.duplicates for batch in batches), quarantined=quarantined)
