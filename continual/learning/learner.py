"""One update: champion, new experience, replay memory and a strategy in; a trained adapter out.

Avalanche's `SupervisedTemplate` drives the loop. Knows nothing of databases, schedules or who asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from continual.domain.digests import sha256_json
from continual.domain.errors import LearningError, StreamError
from continual.domain.samples import Sample
from continual.learning.environment import training_environment
from continual.learning.loop import LoopOrder, TrainingOptions, training_loop
from continual.learning.mixing import LEAST_MIXING
from continual.learning.network import TunedNetwork
from continual.learning.segmentation.dense_cache import DenseCache
from continual.learning.segmentation.tile_cache import Cache
from continual.learning.strategies import Importance, Strategy, StrategyContext, strategy_named
from continual.learning.strategies.ewc import measure_importance
from continual.learning.streams import AnyDraw, as_dataset, as_experience, draws_for, examples_of
from continual.learning.teacher import Teacher, ask_teacher
from continual.learning.training_state import Checkpoints, Spent, StateKeeper, digest_of_tensors

NO_CHECKPOINTS = Checkpoints()
"""Nothing is kept of a training that is cut off, and nobody hears of a batch that is halved."""


@dataclass(frozen=True, slots=True, eq=False)
class UpdateRequest:
    """What to learn. `experience` is new, `memory` the replayed past, `past` all past training samples (joint only).

    `importance` and `taught` belong to the champion whose weights the network carries: how much each weight matters,
    and the classes it tells apart, in its order. None and () where there is no champion.
    """

    strategy: str
    experience: Sequence[Sample]
    memory: Sequence[Sample] = ()
    past: Sequence[Sample] = ()
    importance: Importance | None = None
    taught: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The draws of an update: `fresh` from the new experience (or from everything, joint), `replayed` from memory."""

    fresh: Sequence[AnyDraw]
    replayed: Sequence[AnyDraw]


def learn(
    network: TunedNetwork,
    cache: Cache,
    request: UpdateRequest,
    options: TrainingOptions,
    progress: Callable[[int], None],
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Spent:
    """Train `network` in place and return the seconds it took; frozen weights are never touched.

    With checkpoints, an update that was killed and is asked for again goes on from its last kept state, and on the CPU
    ends with the same weights bit for bit; the earlier run's seconds count. The caller deletes the file when the result
    is safe. Raises StreamError when the strategy is unknown, the experience has no labels, a strategy that distils is
    given a past but not the classes that the champion was taught, or one that regularises a champion without
    importance; LearningError when the micro-batches or the mixing are out of range or one image does not fit into the
    device's memory.
    """
    strategy = strategy_named(request.strategy)
    _check(strategy, request, options)
    keeper = StateKeeper(checkpoints, _decided_by(network, cache, request, options) if checkpoints.path else "")
    torch.manual_seed(options.seed)
    plan = _draw(network, cache, request, options)
    context = StrategyContext(
        memory=_replayed(plan, cache),
        importance=request.importance if strategy.regularises else None,
        anchor={name: weight.detach().clone() for name, weight in network.trainable().items()},
        batch_size=options.batch_size,
        regularisation=options.regularisation,
        teacher=_teacher(network, cache, request, plan, options.patch_share) if strategy.distils else None,
        distillation=options.distillation,
        remembered=len(request.memory),
    )
    half = bool(plan.replayed)
    mixing = options.mixing if half and strategy.mixes else 0.0
    order = LoopOrder(options, strategy.tuning, half, mixing, progress, keeper)
    trainable = network.trainable()
    try:
        loop = training_loop(network, order, strategy.plugins(context))
        loop.train(as_experience(plan.fresh, cache), eval_streams=[])
    finally:
        # A tuning mode may have put weights to sleep; what an update may change is not the mode's to decide.
        for weight in trainable.values():
            weight.requires_grad_(True)
    network.eval()
    return keeper.spent


def _check(strategy: Strategy, request: UpdateRequest, options: TrainingOptions) -> None:
    if not 1 <= options.accumulate <= options.batch_size:
        raise LearningError(
            f"a step of {options.accumulate} micro-batches, must be 1 to the batch size {options.batch_size}; "
            "correct accumulate"
        )
    if strategy.mixes and options.mixing < LEAST_MIXING:
        raise LearningError(
            f"a mixing of {options.mixing}, must be at least {LEAST_MIXING} for {strategy.name!r}; correct mixing"
        )
    if strategy.regularises and request.taught and not request.importance:
        raise StreamError(
            f"strategy {strategy.name!r} holds weights by their importance, and the champion has it for 0 weights: it "
            "is measured on the replay memory, where the change plan allows such a strategy; choose another strategy, "
            "or release an adapter of its own with --allow and a memory"
        )


def options_for(training: TrainingOptions, strategy: str, place: int, *, replayed: bool) -> TrainingOptions:
    """How one update trains: it draws its own batches, from its `place` in the stream or lineage (0: the release).

    A strategy that needs fewer steps over a memory takes its share of them, rounded up, where it has one to replay.
    """
    share = strategy_named(strategy).step_share if replayed else 1.0
    return replace(training, seed=training.seed + place, steps=ceil(share * training.steps))


def importance_of(
    network: TunedNetwork, cache: Cache, samples: Sequence[Sample], progress: Callable[[int], None]
) -> dict[str, Tensor]:
    """Importance of each trainable weight for the samples that have an answer (EWC's diagonal Fisher information)."""
    importance = measure_importance(network, examples_of(cache, samples, network.classes))
    progress(len(samples))
    return importance


def _decided_by(network: TunedNetwork, cache: Cache, request: UpdateRequest, options: TrainingOptions) -> str:
    """Digest of all that decides an update's weights to the last bit, the machine's libraries and threads included."""
    device = next(network.parameters()).device
    samples = {"experience": request.experience, "memory": request.memory, "past": request.past}
    return sha256_json(
        {
            "strategy": request.strategy,
            "options": asdict(options),
            "network": asdict(network.shape) | {"classes": network.classes, "taught": request.taught},
            # A tile is what tells masks from labels, too: 0 for whole images.
            "activations": asdict(cache.key) | {"tile": cache.tile if isinstance(cache, DenseCache) else 0},
            "start": digest_of_tensors(network.trainable()),
            "importance": digest_of_tensors(request.importance or {}),
            "samples": {name: [[s.digest, s.site, s.label, s.mask] for s in group] for name, group in samples.items()},
            "environment": training_environment(device),
        }
    )


def _draw(network: TunedNetwork, cache: Cache, request: UpdateRequest, options: TrainingOptions) -> _Plan:
    strategy = strategy_named(request.strategy)
    half = bool(strategy.replays and request.memory)
    samples = [*request.past, *request.experience] if strategy.joint else request.experience
    size = options.batch_size // 2 if half else options.batch_size
    fresh = draws_for(cache, samples, network.classes, options.steps * size, options.views, options.seed)
    if not half:
        return _Plan(fresh, ())
    count = options.steps * (options.batch_size // 2)
    replayed = draws_for(cache, request.memory, network.classes, count, options.views, options.seed + 1)
    return _Plan(fresh, replayed)


def _replayed(plan: _Plan, cache: Cache) -> Any | None:
    return as_dataset(plan.replayed, cache, first=len(plan.fresh)) if plan.replayed else None


def _teacher(
    network: TunedNetwork, cache: Cache, request: UpdateRequest, plan: _Plan, patch_share: float
) -> Teacher | None:
    if not request.taught:
        if request.memory or request.importance:
            raise StreamError(
                f"strategy {request.strategy!r} learns from what the champion says, and the request names 0 classes "
                "that it was taught; pass the champion's classes"
            )
        return None
    if network.classes[: len(request.taught)] != request.taught:
        raise StreamError(
            f"the champion was taught {list(request.taught)}, the network begins with "
            f"{list(network.classes[: len(request.taught)])}; start from the champion's own network"
        )
    return ask_teacher(network, cache, (plan.fresh, plan.replayed), len(request.taught), patch_share)
