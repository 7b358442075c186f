"""One update: champion, new experience, replay memory and a strategy in; a trained adapter out.

Avalanche's `SupervisedTemplate` drives the loop. Knows nothing of databases, schedules or who asked.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from jaxtyping import Float
from torch import Tensor, nn

from continual.domain.errors import StreamError
from continual.domain.samples import Sample
from continual.learning.activations import ActivationCache
from continual.learning.devices import mixed_precision
from continual.learning.network import AdaptedNetwork
from continual.learning.strategies import STRATEGIES, Importance, StrategyContext
from continual.learning.strategies.ewc import measure_importance
from continual.learning.streams import as_dataset, as_experience, balanced_draws


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How an update trains. `steps` are optimizer steps of `batch_size` draws; rates are AdamW's peak rates."""

    steps: int = 200
    batch_size: int = 32
    lora_rate: float = 1e-3
    head_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    views: int = 4
    patch_share: float = 0.5
    """Share of patch tokens that a training step looks at, drawn anew for every image and step (Liu et al. 2023)."""
    regularisation: float = 1000.0
    seed: int = 20260301


@dataclass(frozen=True, slots=True, eq=False)
class UpdateRequest:
    """What to learn. `experience` is new, `memory` the replayed past, `past` all past training samples (joint only).

    `importance` belongs to the champion whose weights the network carries; None where there is no champion.
    """

    strategy: str
    experience: Sequence[Sample]
    memory: Sequence[Sample] = ()
    past: Sequence[Sample] = ()
    importance: Importance | None = None


class AdapterTemplate(SupervisedTemplate):  # type: ignore[misc]  # Avalanche ships no types
    """Avalanche's loop with the optimizer left as it was built, and each image seen through a part of its patches."""

    patch_share = 1.0

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Nothing to adapt: Avalanche would hand every frozen parameter to the optimizer."""

    def forward(self) -> Tensor:
        """Class scores of the current batch, in mixed precision where the device has it."""
        with mixed_precision(self.device):
            scores: Tensor = self.model(drop_patches(self.mb_x, self.model.vision.num_prefix_tokens, self.patch_share))
        return scores.float()


def drop_patches(
    tokens: Float[Tensor, "image token width"], prefix: int, share: float
) -> Float[Tensor, "image kept width"]:
    """The first `prefix` tokens and a random `share` of the patch tokens, another draw for each image.

    PatchDropout (Liu et al. 2023): the cost of a step falls with the tokens, and the mean patch token stays unbiased.
    """
    patches = tokens.shape[1] - prefix
    kept = max(1, round(share * patches))
    if kept == patches:
        return tokens
    chosen = torch.rand(len(tokens), patches, device=tokens.device).argsort(dim=1)[:, :kept] + prefix
    index = chosen[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens.gather(1, index)], dim=1)


class _Course(SupervisedPlugin):  # type: ignore[misc]  # Avalanche ships no types
    """Clips gradients, moves the learning rate after every step and tells how many are done."""

    def __init__(self, schedule: torch.optim.lr_scheduler.LRScheduler, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._schedule = schedule
        self._progress = progress

    def before_update(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Avalanche calls this between the gradient and the optimizer's step."""
        nn.utils.clip_grad_norm_(list(strategy.model.trainable().values()), max_norm=1.0)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Avalanche calls this after every step."""
        self._schedule.step()
        self._progress(1)


def learn(
    network: AdaptedNetwork,
    cache: ActivationCache,
    request: UpdateRequest,
    options: TrainingOptions,
    progress: Callable[[int], None],
) -> float:
    """Train `network` in place and return the seconds it took; the frozen weights are never touched.

    Raises StreamError when the strategy is unknown or the experience has no labels.
    """
    strategy = STRATEGIES.get(request.strategy)
    if strategy is None:
        raise StreamError(f"no strategy {request.strategy!r}; choose one of {', '.join(STRATEGIES)}")
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    replayed = bool(strategy.replays and request.memory)
    samples = [*request.past, *request.experience] if strategy.joint else request.experience
    fresh = options.steps * (options.batch_size // 2 if replayed else options.batch_size)
    draws = balanced_draws(samples, network.classes, fresh, options.views, options.seed)
    context = StrategyContext(
        memory=_replayed(network, cache, request.memory, options) if replayed else None,
        importance=request.importance if strategy.regularises else None,
        anchor={name: weight.detach().clone() for name, weight in network.trainable().items()},
        batch_size=options.batch_size,
        regularisation=options.regularisation,
    )
    loop = _loop(network, options, [*strategy.plugins(context)], progress, half=replayed)
    loop.train(as_experience(draws, cache), eval_streams=[])
    network.eval()
    return time.perf_counter() - started


def importance_of(
    network: AdaptedNetwork, cache: ActivationCache, samples: Sequence[Sample], progress: Callable[[int], None]
) -> dict[str, Tensor]:
    """Importance of each trainable weight for the labelled samples (EWC's diagonal Fisher information)."""
    labelled = [sample for sample in samples if sample.label in network.classes]
    tokens = [torch.from_numpy(cache.tokens(sample.digest, 0)).float() for sample in labelled]
    targets = [network.classes.index(str(sample.label)) for sample in labelled]
    importance = measure_importance(network, tokens, targets)
    progress(len(labelled))
    return importance


def _replayed(
    network: AdaptedNetwork, cache: ActivationCache, memory: Sequence[Sample], options: TrainingOptions
) -> Any:
    count = options.steps * (options.batch_size // 2)
    return as_dataset(balanced_draws(memory, network.classes, count, options.views, options.seed + 1), cache)


def _loop(
    network: AdaptedNetwork,
    options: TrainingOptions,
    plugins: list[SupervisedPlugin],
    progress: Callable[[int], None],
    half: bool,
) -> AdapterTemplate:
    optimizer = torch.optim.AdamW(_rates(network.trainable(), options), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=options.steps + 1,
        # A rise of one step at least: torch's schedule divides by the length of the rise.
        pct_start=max(0.1, 2 / (options.steps + 1)),
    )
    template = AdapterTemplate(
        model=network,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(label_smoothing=options.label_smoothing),
        train_mb_size=options.batch_size // 2 if half else options.batch_size,
        train_epochs=1,
        device=next(network.parameters()).device,
        plugins=[*plugins, _Course(schedule, progress)],
        evaluator=_no_evaluator(),
    )
    template.patch_share = options.patch_share
    return template


def _no_evaluator() -> EvaluationPlugin:
    """Avalanche's own evaluation, silent: scores come from `continual.learning.evaluation`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin()


def _rates(trainable: Mapping[str, nn.Parameter], options: TrainingOptions) -> list[dict[str, Any]]:
    head = [weight for name, weight in trainable.items() if name.startswith("head.")]
    lora = [weight for name, weight in trainable.items() if not name.startswith("head.")]
    return [{"params": lora, "lr": options.lora_rate}, {"params": head, "lr": options.head_rate}]
