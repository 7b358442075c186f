"""The training loop: Avalanche's `SupervisedTemplate`, an optimizer with one group per depth, one rate course.

Knows Avalanche and torch; knows nothing of samples, sites or what a strategy's plugins do.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from jaxtyping import Float
from torch import Tensor, nn

from continual.domain.adapters import Task
from continual.learning.devices import mixed_precision
from continual.learning.network import TunedNetwork
from continual.learning.strategies.tuning import Tuning, Unfreezing, depth_of

DENSE_BATCH = 8
"""Tiles in a batch: each has thousands of pixels to learn from."""
DENSE_HEAD_RATE = 3e-3
"""A decoder starts from nothing and has depth; at a classifier's rate it is still learning when the steps end."""


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
    """Share of patch tokens that a training step looks at, drawn anew for every image and step (Liu et al. 2023).

    Segmentation looks at all of them: every pixel is asked for.
    """
    regularisation: float = 1000.0
    """Strength of weight consolidation (EWC's lambda)."""
    distillation: float = 1.0
    """Strength of the terms that hold the network to what the champion said; 0 turns them off."""
    seed: int = 20260301


def training_options(task: Task, steps: int, seed: int) -> TrainingOptions:
    """The options that a task is trained with where nobody says otherwise."""
    if task is Task.SEGMENTATION:
        return TrainingOptions(steps=steps, seed=seed, batch_size=DENSE_BATCH, head_rate=DENSE_HEAD_RATE)
    return TrainingOptions(steps=steps, seed=seed)


class AdapterTemplate(SupervisedTemplate):  # type: ignore[misc]  # Avalanche ships no types
    """Avalanche's loop with the optimizer left as it was built, and each image seen through a part of its patches."""

    patch_share = 1.0

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Nothing to adapt: Avalanche would hand every frozen parameter to the optimizer."""

    def forward(self) -> Tensor:
        """Class scores of the current batch, in mixed precision where the device has it."""
        with mixed_precision(self.device):
            tokens = drop_patches(self.mb_x, self.model.vision.num_prefix_tokens, self.patch_share)
            # Between the number of the draw and the task label stands what else the network is given.
            scores: Tensor = self.model(tokens, *self.mbatch[3:-1])
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


@dataclass(frozen=True, slots=True)
class LoopOrder:
    """What one loop is to do: options, tuning mode, whether half of each batch is new, and who hears of progress."""

    options: TrainingOptions
    tuning: Tuning
    half: bool
    progress: Callable[[int], None]


def training_loop(network: TunedNetwork, order: LoopOrder, plugins: Sequence[SupervisedPlugin]) -> AdapterTemplate:
    """Avalanche's template, ready to train `network` on one experience.

    Weights that the tuning mode opens late or never are left with `requires_grad` off: the caller turns it on again.
    """
    options, blocks = order.options, len(network.vision.blocks)
    weights = network.trainable()
    depths = {name: depth_of(name, blocks) for name in weights}
    deepest = max(depths.values())
    openings = {name: order.tuning.opening(depth, deepest) for name, depth in depths.items()}
    learning = {name: weight for name, weight in weights.items() if openings[name] < 1}
    optimizer = torch.optim.AdamW(_rates(learning, depths, order), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=options.steps + 1,
        # A rise of one step at least: torch's schedule divides by the length of the rise.
        pct_start=max(0.1, 2 / (options.steps + 1)),
    )
    unfreezing = Unfreezing(weights, openings, options.steps)
    template = AdapterTemplate(
        model=network,
        optimizer=optimizer,
        criterion=network.criterion(options.label_smoothing),
        train_mb_size=options.batch_size // 2 if order.half else options.batch_size,
        train_epochs=1,
        device=next(network.parameters()).device,
        plugins=[unfreezing, *plugins, _Course(schedule, order.progress)],
        evaluator=_no_evaluator(),
    )
    template.patch_share = options.patch_share if network.looks_at_parts else 1.0
    return template


def _no_evaluator() -> EvaluationPlugin:
    """Avalanche's own evaluation, silent: scores come from `continual.learning.evaluation`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin()


def _rates(weights: dict[str, nn.Parameter], depths: dict[str, int], order: LoopOrder) -> list[dict[str, Any]]:
    groups = []
    for depth in sorted({depths[name] for name in weights}):
        rate = order.options.lora_rate if depth else order.options.head_rate
        group = [weight for name, weight in weights.items() if depths[name] == depth]
        groups.append({"params": group, "lr": rate * order.tuning.pace(depth)})
    return groups
