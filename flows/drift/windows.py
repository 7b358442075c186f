"""Windows for a drift look: what the champion and the backbone make of samples; knows nothing of when to look."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from jaxtyping import Int

from continual.domain.adapters import Task
from continual.domain.samples import Sample
from continual.learning import VersionNetwork, probabilities
from flows.progress import track
from flows.updates.adapter_context import AdapterContext
from monitoring import UNLABELLED, Window


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
