"""What a champion's lineage has learnt, and from which of its versions another kind of candidate can start."""

from continual.domain.adapters import CLOSED_FORM, AdapterVersion, kind_of
from continual.domain.samples import Sample, Split
from flows.updates.adapter_context import AdapterContext
from flows.updates.evaluation import labelled_samples
from flows.updates.learnt import has_learnt


def newest_of_lora(context: AdapterContext, version: AdapterVersion | None) -> AdapterVersion | None:
    """The version itself if it has LoRA weights, else its nearest ancestor that has; None where there is none."""
    while version is not None and kind_of(version.record) == CLOSED_FORM:
        parent = version.parent
        version = None if parent is None else context.registry.adapters.get(context.name, parent)
    return version


def learnt_samples(
    context: AdapterContext, champion: AdapterVersion | None, since: AdapterVersion | None = None
) -> list[Sample]:
    """Labelled training samples, still stored, of the batches that the champion has learnt and `since` had not.

    In the order of the sites learnt. What arrived later at a past site stays out: nobody has looked at it yet.
    """
    if champion is None:
        return []
    found = []
    for site in champion.trained_on:
        labelled = labelled_samples(context, site, Split.TRAIN)
        found += [sample for sample in labelled if has_learnt(champion, sample) and not has_learnt(since, sample)]
    return found
