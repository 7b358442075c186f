"""Elastic weight consolidation (Kirkpatrick et al. 2017) on trainable parameters only.

Avalanche's plugin keeps importance for every frozen tensor and squares batch means, so that importance depends on the
batch size; here importance is the mean of squared per-sample gradients.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from jaxtyping import Float
from torch import Tensor

from continual.learning.network import TunedNetwork
from continual.learning.strategies.strategy import Importance, Strategy, StrategyContext
from continual.learning.streams import Example


class ElasticWeightConsolidation(SupervisedPlugin):  # type: ignore[misc]  # Avalanche ships no types
    """Adds strength / 2 x sum of importance x (weight - champion's weight)^2 to every batch's loss."""

    def __init__(self, importance: Importance, anchor: Mapping[str, Tensor], strength: float) -> None:
        super().__init__()
        self._importance = {name: _fitted(value, anchor[name]) for name, value in importance.items() if name in anchor}
        self._anchor = anchor
        self._strength = strength

    def penalty(self, network: TunedNetwork) -> Float[Tensor, ""]:
        """The term that is added; zero only where the weights equal the champion's."""
        terms = [
            (self._importance[name] * (weight - self._anchor[name]).pow(2)).sum()
            for name, weight in network.trainable().items()
            if name in self._importance
        ]
        return self._strength / 2 * torch.stack(terms).sum()

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Avalanche calls this between the loss and its gradient."""
        strategy.loss += self.penalty(strategy.model)


def _fitted(importance: Tensor, weight: Tensor) -> Tensor:
    """Importance of a head that has grown since: nothing is known of the new rows, so nothing holds them."""
    missing = len(weight) - len(importance)
    return torch.cat([importance, importance.new_zeros(missing, *importance.shape[1:])]) if missing else importance


def measure_importance(network: TunedNetwork, examples: Iterable[Example]) -> dict[str, Tensor]:
    """Mean squared gradient of the loss without smoothing, one example at a time, per trainable parameter.

    Empty where there is no example: nothing is known then, and zeros would say that no weight matters.
    """
    total = {name: torch.zeros_like(weight) for name, weight in network.trainable().items()}
    criterion, count = network.criterion(0.0), 0
    device = next(iter(total.values())).device
    network.eval()
    for inputs, target in examples:
        network.zero_grad(set_to_none=True)
        loss = criterion(network(*(part[None].to(device) for part in inputs)), target[None].to(device))
        loss.backward()
        for name, weight in network.trainable().items():
            if weight.grad is not None:
                total[name] += weight.grad.detach().pow(2)
        count += 1
    network.zero_grad(set_to_none=True)
    return {name: value / count for name, value in total.items()} if count else {}


def ewc_plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    """The penalty around the champion; none where there is no champion."""
    if not context.importance or context.anchor is None:
        return ()
    return (ElasticWeightConsolidation(context.importance, context.anchor, context.regularisation),)


EWC = Strategy("ewc", "weights that mattered stay near the champion's", ewc_plugins, regularises=True, stays=True)
