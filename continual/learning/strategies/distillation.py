"""Distillation terms: the network under training is held to what the champion said of the same image.

Of a whole image that is its mean over the views, of a tile or box what it said of this view on all patches: the terms
teach the part that a step looks at to say what was said of more. Every term takes scores of shape (image, class) or,
for dense outputs, (image, class, ...position); positions outside the field of view do not count.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from continual.domain.samples import IGNORED
from continual.learning.teacher import Teacher

SOFTENING = 2.0
"""Temperature at which champion and network are compared (Li & Hoiem 2016)."""

Scores = Float[Tensor, "image klass *position"]
Targets = Int[Tensor, "image *position"]
Numbers = Int[Tensor, "image"]
Whole = tuple[Int[Tensor, "every *position"], Int[Tensor, "every"]]
"""Targets and numbers of all draws of a batch that is learnt in parts."""


def divergence(scores: Scores, said: Scores) -> Float[Tensor, "image *position"]:
    """Kullback-Leibler divergence of the network from the champion at temperature 2, times 4 (Hinton et al. 2015)."""
    wanted, found = log_softmax(said / SOFTENING, dim=1), log_softmax(scores / SOFTENING, dim=1)
    return SOFTENING**2 * (wanted.exp() * (wanted - found)).sum(dim=1)


def belief(said: Scores, targets: Targets) -> Float[Tensor, "image *position"]:
    """The champion's probability of the true class, in [0, 1]; 1 for a class it never heard of.

    Where the champion denies the label, what it says is an error to be unlearnt and not knowledge to be kept. Of a new
    class it can only say which old one it resembles, which contradicts no label (Li & Hoiem's own case).
    """
    known = said.shape[1]
    place = targets.clamp(0, known - 1).unsqueeze(1)
    found = said.softmax(dim=1).gather(1, place).squeeze(1)
    return torch.where(targets < known, found, torch.ones_like(found))


def inside(targets: Targets) -> Float[Tensor, "image *position"]:
    """1 for what counts, 0 for positions outside the field of view; a whole image always counts."""
    return torch.ones_like(targets, dtype=torch.float32) if targets.ndim == 1 else (targets != IGNORED).float()


def _mean_over(every: Float[Tensor, "image *position"], total: Float[Tensor, ""], draws: int) -> Float[Tensor, ""]:
    """The part that `draws` draws have in a mean over what counts in the whole batch, `every`.

    The loop weighs a part by its share of the batch, and this mean needs it weighed by its share of what counts.
    """
    return total / every.sum().clamp(min=1.0) * (len(every) / draws)


class _HeldToChampion(SupervisedPlugin, ABC):  # type: ignore[misc]  # Avalanche ships no types
    """Adds `penalty` to the loss of every micro-batch; of mixed images, by share of what they were made of."""

    def __init__(self, teacher: Teacher, strength: float) -> None:
        super().__init__()
        self._teacher = teacher
        self._strength = strength

    @abstractmethod
    def penalty(
        self, scores: Scores, targets: Targets, numbers: Numbers, whole: Whole | None = None
    ) -> Float[Tensor, ""]:
        """The term that is added. `whole` is the whole batch where the draws given are a part of it."""

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Avalanche calls this between the loss and its gradient."""
        whole = (strategy.answers, strategy.draws)
        for share, targets, numbers in strategy.shown():
            strategy.loss += share * self.penalty(strategy.mb_output, targets, numbers, whole)


class Distillation(_HeldToChampion):
    """Adds strength x mean divergence to every batch's loss: replayed draws in full, new ones by the belief in them."""

    def penalty(
        self, scores: Scores, targets: Targets, numbers: Numbers, whole: Whole | None = None
    ) -> Float[Tensor, ""]:
        """The term that is added; zero only where the network still says what the champion said."""
        said = self._teacher.said(numbers)
        apart = divergence(scores[:, : self._teacher.classes], said)
        replayed = self._teacher.replayed(numbers).reshape(-1, *(1,) * (apart.ndim - 1))
        weight = torch.where(replayed, torch.ones_like(apart), belief(said, targets))
        counted = inside(targets)
        every = counted if whole is None else inside(whole[0])
        return self._strength * _mean_over(every, (counted * weight * apart).sum(), len(numbers))


class ScoreMatching(_HeldToChampion):
    """Adds strength x mean squared distance of the scores to the champion's, on replayed draws only."""

    def penalty(
        self, scores: Scores, targets: Targets, numbers: Numbers, whole: Whole | None = None
    ) -> Float[Tensor, ""]:
        """The term that is added; zero where no draw is replayed or the scores are still the champion's."""
        apart = (scores[:, : self._teacher.classes] - self._teacher.said(numbers)).square().mean(dim=1)
        counted = self._counted(targets, numbers)
        every = counted if whole is None else self._counted(*whole)
        return self._strength * _mean_over(every, (counted * apart).sum(), len(numbers))

    def _counted(self, targets: Targets, numbers: Numbers) -> Float[Tensor, "image *position"]:
        return inside(targets) * self._teacher.replayed(numbers).reshape(-1, *(1,) * (targets.ndim - 1))
