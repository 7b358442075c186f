"""Which stored samples a champion has learnt, and which are new to it; knows nothing of how one learns."""

from collections.abc import Sequence

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.metrics import task_of
from continual.domain.samples import Sample, Split
from flows.updates.adapter_context import AdapterContext
from flows.updates.learnt import has_learnt
from flows.updates.letting_go import learnable


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
