"""Tuning modes: which trainable weights learn, how fast and from when, by their depth under the scores.

Knows depths and rates; knows nothing of data, of losses or of what the weights are.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Tuning:
    """A tuning mode. Depth 0 is the head, 1 the backbone's last block, 2 the one before, and so on.

    `pace` gives the factor on a depth's learning rate, above 0. `opening` gives, for a depth and the deepest one, the
    share of the steps that pass before its weights learn: 0 from the start, `NEVER` not at all.
    """

    pace: Callable[[int], float]
    opening: Callable[[int, int], float]


def full_pace(_depth: int) -> float:
    """Every depth at its own rate."""
    return 1.0


def from_the_start(_depth: int, _deepest: int) -> float:
    """Every depth from the first step."""
    return 0.0


WHOLE = Tuning(full_pace, from_the_start)
"""Every trainable weight learns from the first step, at its own rate."""


class Unfreezing(SupervisedPlugin):  # type: ignore[misc]  # Avalanche ships no types
    """Before every step, lets those weights learn whose opening has come; the others get no gradient at all.

    Weights that sleep at the bottom also cost no backward pass.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], openings: Mapping[str, float], steps: int) -> None:
        super().__init__()
        self._weights = weights
        self._openings = openings
        self._steps = steps

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Avalanche calls this before every step."""
        # From the loop's own clock: an update that goes on after a kill does not begin at 0.
        share = strategy.clock.train_iterations / self._steps
        for name, weight in self._weights.items():
            weight.requires_grad_(self._openings[name] <= share)
