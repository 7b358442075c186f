"""The training loop: Avalanche's `SupervisedTemplate`, an optimizer with one group per depth, one rate course.

Knows Avalanche and torch; knows nothing of samples, sites or what a strategy's plugins do.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from continual.domain.adapters import Task
from continual.learning.devices import is_out_of_memory, mixed_precision, no_room, release_memory
from continual.learning.mixing import Mixture, draw_mixture
from continual.learning.network import PIXELS, TunedNetwork
from continual.learning.patch_dropout import thinned
from continual.learning.segmentation.loss import DiceCrossEntropy
from continual.learning.strategies.tuning import Tuning, Unfreezing
from continual.learning.training_state import Moving, StateKeeper, TrainingState, capture, restore, restore_chance

DENSE_BATCH = 8
"""Tiles in a batch: each has thousands of pixels to learn from."""
PATCH_BATCH = 4
"""Patches of volumes in a batch: each has tens of thousands of voxels."""
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
    mixing: float = 0.4
    """Concentration of the shares that a mixing strategy draws, at least 0.05: the lower, the purer each image is."""
    upright: bool = False
    """Views are neither turned nor mirrored: left and right, up and down mean something."""
    seed: int = 20260301
    accumulate: int = 1
    """Micro-batches that make a step, 1 to `batch_size`: more take less memory, and the same batch is learnt."""


def training_options(
    task: Task, steps: int, seed: int, *, volumes: bool = False, upright: bool | None = None
) -> TrainingOptions:
    """The options that a task is trained with, on images or on volumes, where nobody says otherwise.

    Volumes lie in the patient's axes, and organs come in a left and a right: their views are upright unless told.
    """
    kept = volumes if upright is None else upright
    if task is Task.SEGMENTATION:
        size = PATCH_BATCH if volumes else DENSE_BATCH
        return TrainingOptions(steps=steps, seed=seed, batch_size=size, head_rate=DENSE_HEAD_RATE, upright=kept)
    return TrainingOptions(steps=steps, seed=seed, upright=kept)


class AdapterTemplate(SupervisedTemplate):  # type: ignore[misc]  # Avalanche ships no types
    """Avalanche's loop with the optimizer left as it was built, and each image seen through a part of its patches.

    A batch is learnt in `accumulate` micro-batches, whose gradients add up to the batch's; where one does not fit into
    the device's memory it is halved. Plugins are shown micro-batches between `before_forward` and `after_backward`, the
    whole batch otherwise; `draws` and `answers` are the numbers and targets of the whole batch's draws at any time.
    Where images are mixed, a micro-batch answers for its images and for their partners: `shown` tells of both.
    """

    patch_share = 1.0
    mixing = 0.0
    mixture: Mixture | None = None
    part = slice(None)
    accumulate = 1
    resumed: TrainingState | None = None
    draws: Tensor
    answers: Tensor
    say: Callable[[str], None]

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Nothing to adapt: Avalanche would hand every frozen parameter to the optimizer."""

    def forward(self) -> Tensor:
        """Class scores of the current micro-batch, in mixed precision where the device has it."""
        with mixed_precision(self.device):
            tokens = self.model.embedded(self.mb_x)
            # Between the number of the draw and the task label stands what else the network is given.
            scores: Tensor = self.model(tokens if tokens is self.mb_x else self._thinned(tokens), *self.mbatch[3:-1])
        return scores.float()

    def training_epoch(self, **kwargs: Any) -> None:
        """Avalanche's epoch, from the step that a kept state left off at."""
        batches = _from_step(self.dataloader, self.clock.train_iterations)
        # Avalanche draws the order of an epoch when its first batch is asked for: what is put back here comes after.
        first = next(batches, None)
        if self.resumed is not None:
            restore_chance(self.resumed, self.device)
        for self.mbatch in chain([first], batches) if first is not None else ():
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self.answers, self.draws = self.mbatch[1:3]
            self._learn_batch(self._seen(), **kwargs)
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)

    def _seen(self) -> list[Tensor]:
        """The batch with a part of each image's patches; drawn once, so that a batch learnt again is the same.

        Pixels have no patches to leave out yet: their tokens are thinned once the network has embedded them.
        """
        inputs = self.mb_x
        # A mask's places have answers of their own, which no share of an image has.
        if self.mixing and self.answers.ndim == 1:
            self.mixture = draw_mixture(len(inputs), self.mixing, inputs.device)
            inputs = self.mixture.of(inputs)
        return [inputs if self.model.split == PIXELS else self._thinned(inputs), *self.mbatch[1:]]

    def shown(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Shares, targets and numbers of what the current micro-batch is made of: its images, then their partners."""
        if self.mixture is None:
            yield 1.0, self.mb_y, self.mbatch[2]
            return
        partners = self.mixture.partners[self.part]
        yield self.mixture.share, self.mb_y, self.mbatch[2]
        yield 1.0 - self.mixture.share, self.answers[partners], self.draws[partners]

    def criterion(self) -> Tensor:
        """The loss of the current micro-batch, by share of what it is made of."""
        losses = [share * self._criterion(self.mb_output, targets) for share, targets, _ in self.shown()]
        return torch.stack(losses).sum()

    def _thinned(self, tokens: Tensor) -> Tensor:
        return thinned(self.model, tokens, self.patch_share)

    def _learn_batch(self, seen: list[Tensor], **kwargs: Any) -> None:
        whole = self.mbatch
        while not self._fits(seen, **kwargs):
            self._halve(len(seen[0]), seen[0].shape[1])
        self.mbatch = whole

    def _fits(self, seen: list[Tensor], **kwargs: Any) -> bool:
        """Whether the batch's gradient could be had in the device's memory."""
        self.optimizer.zero_grad()
        size = len(seen[0])
        try:
            parts = list(zip(*(values.tensor_split(min(self.accumulate, size)) for values in seen), strict=True))
            self._expect(parts)
            start = 0
            for part in parts:
                self.mbatch = list(part)
                self.part = slice(start, start + len(part[0]))
                self._add_gradient(len(part[0]) / size, **kwargs)
                start = self.part.stop
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    @torch.no_grad()
    def _expect(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """Dice is of the whole batch: before its parts are learnt, all of them are looked at once."""
        if not isinstance(self._criterion, DiceCrossEntropy):
            return
        self._criterion.forget()
        if len(parts) > 1:
            for part in parts:
                self.mbatch = list(part)
                self._criterion.expect(self.forward(), self.mb_y)

    def _add_gradient(self, share: float, **kwargs: Any) -> None:
        """The micro-batch's part of the batch's gradient; terms that plugins add count by the same share."""
        self.loss = self._make_empty_loss()
        self._before_forward(**kwargs)
        self.mb_output = self.forward()
        self._after_forward(**kwargs)
        self.loss += self.criterion()
        self._before_backward(**kwargs)
        self.loss = self.loss * share
        self.backward()
        self._after_backward(**kwargs)

    def _halve(self, size: int, tokens: int) -> None:
        """Called outside the handler of the error, which keeps the activations of what did not fit alive."""
        self.mb_output = self.loss = self._make_empty_loss()
        self.optimizer.zero_grad()
        release_memory(self.device)
        tried = -(-size // self.accumulate)
        if tried == 1:
            raise no_room(tokens, self.device, f"and a batch of {size} is already learnt one by one")
        self.accumulate = min(2 * self.accumulate, size)
        self.say(
            f"a batch of {tried} does not fit into the memory of {self.device}: halved to "
            f"{-(-size // self.accumulate)}, {self.accumulate} of them make a step"
        )


def _from_step(dataloader: MultiDatasetDataLoader, step: int) -> Iterator[Any]:
    """The batches of an epoch from `step` on; those before it are drawn as ever, but their images are not read."""
    loader = dataloader._get_loader()
    yield from DataLoader(
        loader.dataset,
        batch_sampler=_Rest(loader.batch_sampler, step),
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )


class _Rest(Sampler[list[int]]):
    """What another sampler gives after its first `skipped` batches."""

    def __init__(self, batches: Sampler[list[int]], skipped: int) -> None:
        self._batches = batches
        self._skipped = skipped

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self._batches), self._skipped, None)


class _Course(SupervisedPlugin):  # type: ignore[misc]  # Avalanche ships no types
    """Clips gradients, moves the learning rate after every step, keeps the training state, tells how many are done."""

    def __init__(self, moving: Moving, order: "LoopOrder") -> None:
        super().__init__()
        self._moving = moving
        self._order = order

    def before_update(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Avalanche calls this between the gradient and the optimizer's step."""
        nn.utils.clip_grad_norm_(list(self._moving.weights.values()), max_norm=1.0)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Avalanche calls this after every step."""
        self._moving.schedule.step()
        # Avalanche's clock moves after every other plugin.
        done, keeper = strategy.clock.train_iterations + 1, self._order.keeper
        if keeper.due() or done == self._order.options.steps:
            keeper.write(capture(self._moving, done, keeper.spent, strategy.accumulate))
        self._order.progress(1)


@dataclass(frozen=True, slots=True)
class LoopOrder:
    """What one loop is to do: options, tuning mode, whether half of each batch is new, the concentration that images
    are mixed with (0: not at all), who hears of progress, and who keeps the training state.
    """

    options: TrainingOptions
    tuning: Tuning
    half: bool
    mixing: float
    progress: Callable[[int], None]
    keeper: StateKeeper


def training_loop(network: TunedNetwork, order: LoopOrder, plugins: Sequence[SupervisedPlugin]) -> AdapterTemplate:
    """Avalanche's template, ready to train `network` on one experience, or to go on where an earlier run was cut off.

    Weights that the tuning mode opens late or never are left with `requires_grad` off: the caller turns it on again.
    """
    options, weights, depths = order.options, network.trainable(), network.depths()
    deepest = max(depths.values())
    openings = {name: order.tuning.opening(depth, deepest) for name, depth in depths.items()}
    learning = {name: weight for name, weight in weights.items() if openings[name] < 1}
    moving = _moving(learning, depths, order)
    template = AdapterTemplate(
        model=network,
        optimizer=moving.optimizer,
        criterion=network.criterion(options.label_smoothing),
        train_mb_size=options.batch_size // 2 if order.half else options.batch_size,
        train_epochs=1,
        device=moving.device,
        plugins=[Unfreezing(weights, openings, options.steps), *plugins, _Course(moving, order)],
        evaluator=_no_evaluator(),
    )
    template.patch_share = options.patch_share
    template.mixing = order.mixing
    template.accumulate = options.accumulate
    template.say = order.keeper.say
    _go_on(template, moving, order)
    return template


def _moving(weights: dict[str, nn.Parameter], depths: dict[str, int], order: LoopOrder) -> Moving:
    """The weights that ever learn, under AdamW with a rate for each depth, on one cycle (Smith & Topin 2018)."""
    options = order.options
    optimizer = torch.optim.AdamW(_rates(weights, depths, order), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=options.steps + 1,
        # A rise of one step at least: torch's schedule divides by the length of the rise.
        pct_start=max(0.1, 2 / (options.steps + 1)),
    )
    return Moving(weights, optimizer, schedule, next(iter(weights.values())).device)


def _go_on(template: AdapterTemplate, moving: Moving, order: LoopOrder) -> None:
    """Start where an earlier run of this update was cut off."""
    state = order.keeper.read()
    if state is None:
        return
    restore(state, moving)
    template.resumed = state
    template.accumulate = state.accumulate
    template.clock.train_iterations = state.step
    order.keeper.say(f"training goes on from step {state.step} of {order.options.steps}")
    order.progress(state.step)


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
