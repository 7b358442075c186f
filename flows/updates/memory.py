"""The replay memory at work: what is chosen after an update, and the bytes that remembering costs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from continual.domain.adapters import Task
from continual.domain.errors import StreamError
from continual.domain.samples import Sample
from continual.learning import STRATEGIES, Candidates, Capacity, DenseCache, policy_named, select_memory

if TYPE_CHECKING:
    from flows.updates.adapter_context import AdapterContext


def choose_memory(context: "AdapterContext", samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """What the change plan's policy and capacity keep of the samples, the worthiest first.

    Of one picture at two sites the earlier in `samples` is kept.
    """
    plan = context.options.plan
    if policy_named(plan.replay_policy).needs_features:
        context.fill(samples, 0, "replay memory: features")
    sizes = bytes_kept(context, samples) if plan.replay_bytes else {}
    candidates = Candidates(
        _as_one_class(samples) if context.options.task is Task.SEGMENTATION else samples,
        context.options.training.seed,
        sizes,
        context.cache.features,
    )
    kept = select_memory(candidates, Capacity(plan.replay_samples, plan.replay_bytes), plan.replay_policy)
    # The reversed order lets the earlier overwrite the later; a label or a mask is what makes a sample a candidate.
    chosen = {sample.digest: sample for sample in reversed(samples) if sample.labelled_for(context.options.task)}
    return tuple(chosen[digest] for digest in kept)


def check_memory(context: "AdapterContext", memory: Sequence[Sample], samples: Sequence[Sample]) -> None:
    """Raise StreamError where importance will be measured on a memory whose bytes hold none of the samples."""
    plan = context.options.plan
    holding = [name for name in plan.strategies if name in STRATEGIES and STRATEGIES[name].regularises]
    if memory or not holding or not samples:
        return
    smallest = min(bytes_kept(context, samples).values())
    raise StreamError(
        f"a replay memory of {plan.replay_bytes} bytes holds 0 of {len(samples)} samples, the smallest of which takes "
        f"{smallest}, and {holding[0]} measures the importance of weights on it; release with a larger --replay-bytes, "
        "or with --allow for strategies that measure none"
    )


def _as_one_class(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with masks, all of one class: policies then share the memory out by site."""
    return [replace(sample, label="mask") for sample in samples if sample.mask is not None]


def bytes_kept(context: "AdapterContext", samples: Sequence[Sample]) -> dict[str, int]:
    """Bytes that remembering each sample, by digest, costs: those of its image, or of its activations without images.

    Activations are features and the views that are drawn from; where one is missing, it is computed.
    """
    if context.options.plan.keep_images or isinstance(context.cache, DenseCache):
        return context.registry.samples.sizes(samples)
    views = context.options.training.views
    context.fill(samples, views, "replay memory: sizes")
    return context.cache.sizes([sample.digest for sample in samples], views)
