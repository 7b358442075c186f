"""What a strategy is: a name, what it needs, and the Avalanche plugins it adds to the loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor

Importance = Mapping[str, Tensor]
"""Diagonal Fisher information per trainable parameter, by parameter name, never negative."""


@dataclass(frozen=True, slots=True, eq=False)
class StrategyContext:
    """What the loop knows when plugins are made; each is None where there is no past yet.

    `memory` is an Avalanche dataset of replayed draws; `anchor` holds the champion's trainable weights.
    """

    memory: Any | None
    importance: Importance | None
    anchor: Mapping[str, Tensor] | None
    batch_size: int
    regularisation: float


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to update. `replays` asks for a replay memory, `joint` for every past training image (upper bound)."""

    name: str
    summary: str
    plugins: Callable[[StrategyContext], Sequence[SupervisedPlugin]]
    replays: bool = False
    regularises: bool = False
    joint: bool = False
