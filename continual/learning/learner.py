"""One update: champion, new experience, replay memory and a strategy in; a trained adapter out.

Avalanche's `SupervisedTemplate` drives the loop. Knows nothing of databases, schedules or who asked.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from continual.domain.errors import StreamError
from continual.domain.samples import Sample
from continual.learning.loop import LoopOrder, TrainingOptions, training_loop
from continual.learning.network import TunedNetwork
from continual.learning.segmentation.tile_cache import Cache
from continual.learning.strategies import STRATEGIES, Importance, StrategyContext
from continual.learning.strategies.ewc import measure_importance
from continual.learning.streams import AnyDraw, as_dataset, as_experience, draws_for, examples_of
from continual.learning.teacher import Teacher, ask_teacher


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
) -> float:
    """Train `network` in place and return the seconds it took; the frozen weights are never touched.

    Raises StreamError when the strategy is unknown, the experience has no labels, or a strategy that distils is given a
    past but not the classes that the champion was taught.
    """
    strategy = STRATEGIES.get(request.strategy)
    if strategy is None:
        raise StreamError(f"no strategy {request.strategy!r}; choose one of {', '.join(STRATEGIES)}")
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    plan = _draw(network, cache, request, options)
    context = StrategyContext(
        memory=_replayed(plan, cache),
        importance=request.importance if strategy.regularises else None,
        anchor={name: weight.detach().clone() for name, weight in network.trainable().items()},
        batch_size=options.batch_size,
        regularisation=options.regularisation,
        teacher=_teacher(network, cache, request, plan) if strategy.distils else None,
        distillation=options.distillation,
    )
    order = LoopOrder(options, strategy.tuning, bool(plan.replayed), progress)
    trainable = network.trainable()
    try:
        loop = training_loop(network, order, strategy.plugins(context))
        loop.train(as_experience(plan.fresh, cache), eval_streams=[])
    finally:
        # A tuning mode may have put weights to sleep; what an update may change is not the mode's to decide.
        for weight in trainable.values():
            weight.requires_grad_(True)
    network.eval()
    return time.perf_counter() - started


def importance_of(
    network: TunedNetwork, cache: Cache, samples: Sequence[Sample], progress: Callable[[int], None]
) -> dict[str, Tensor]:
    """Importance of each trainable weight for the samples that have an answer (EWC's diagonal Fisher information)."""
    importance = measure_importance(network, examples_of(cache, samples, network.classes))
    progress(len(samples))
    return importance


def _draw(network: TunedNetwork, cache: Cache, request: UpdateRequest, options: TrainingOptions) -> _Plan:
    strategy = STRATEGIES[request.strategy]
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


def _teacher(network: TunedNetwork, cache: Cache, request: UpdateRequest, plan: _Plan) -> Teacher | None:
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
    return ask_teacher(network, cache, plan.fresh, plan.replayed, len(request.taught))
