"""Windows for a drift look: what the champion and the backbone make of samples; knows nothing of when to look."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from jaxtyping import Int

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.metrics import task_of
from continual.domain.samples import Sample, Split
from continual.learning import VersionNetwork, probabilities
from flows.adapter_context import AdapterContext
from flows.learnt import has_learnt
from flows.letting_go import learnable
from flows.progress import track
from monitoring import UNLABELLED, Window


def new_samples(
    context: AdapterContext, champion: AdapterVersion | None, site: str, *, with_held: bool = False
) -> list[Sample]:
    """Samples of `site` that arrived after the champion learnt it; all of them for a new site."""
    stored = context.registry.samples.list(site, with_held=with_held)
    return learnable(context, [sample for sample in stored if not has_learnt(champion, sample)])


def new_labels(champion: AdapterVersion, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Labels among the samples that the version does not tell apart, in alphabetical order; none for one of masks."""
    if task_of(champion.metric) is Task.SEGMENTATION:
        return ()
    return tuple(sorted({sample.label for sample in samples if sample.label is not None} - set(champion.classes)))


def held_out(context: AdapterContext, champion: AdapterVersion, site: str) -> list[Sample]:
    """Samples of a site that the champion learnt, without those it was trained on.

    On what it was trained on the champion is surer than on anything new.
    """
    stored = context.registry.samples.list(site)
    return [sample for sample in stored if has_learnt(champion, sample) and sample.split is not Split.TRAIN]


def window_of(
    context: AdapterContext,
    network: VersionNetwork,
    site: str,
    samples: Sequence[Sample],
    arrived: datetime | None = None,
) -> Window:
    """The window of some samples whose activations are in the cache; `arrived` is when the first came."""
    digests = [sample.digest for sample in samples]
    whole_images = context.options.task is Task.CLASSIFICATION
    return Window(
        site=site,
        subjects=tuple(sample.subject for sample in samples),
        embeddings=context.cache.features(digests),
        outputs=probabilities(network, context.cache, digests, track(f"{site}: outputs", len(digests))),
        tags=tuple(sample.tags for sample in samples),
        pixel_statistics=tuple(sample.pixel_statistics for sample in samples),
        labels=_labels(network, samples) if whole_images else None,
        classes=network.classes if whole_images else (),
        samples=tuple(digests),
        arrived=arrived,
    )


def _labels(network: VersionNetwork, samples: Sequence[Sample]) -> Int[np.ndarray, "sample"]:
    places = {label: place for place, label in enumerate(network.classes)}
    return np.array([UNLABELLED if s.label is None else places.get(s.label, UNLABELLED) for s in samples], dtype=int)
