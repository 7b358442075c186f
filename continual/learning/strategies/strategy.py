"""What a strategy is: a name, what it needs, and the Avalanche plugins it adds to the loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor

from continual.learning.strategies.tuning import WHOLE, Tuning
from continual.learning.teacher import Teacher

Importance = Mapping[str, Tensor]
"""Diagonal Fisher information per trainable parameter, by parameter name, never negative."""


@dataclass(frozen=True, slots=True, eq=False)
class StrategyContext:
    """What the loop knows when plugins are made; each is None where there is no past yet.

    `memory` is an Avalanche dataset of replayed draws, from `remembered` images; `anchor` holds the champion's
    trainable weights; `teacher` what the champion said of every draw. `regularisation` and `distillation` scale the
    terms that are added to the loss. Such a term is a mean over the draws that the plugin is shown, or does not depend
    on them: where a batch is learnt in parts, the loop weighs each part by its share.
    """

    memory: Any | None
    importance: Importance | None
    anchor: Mapping[str, Tensor] | None
    batch_size: int
    regularisation: float
    teacher: Teacher | None = None
    distillation: float = 1.0
    remembered: int = 0


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to update. `replays` asks for a replay memory, `joint` for every past training image (upper bound).

    `regularises` asks for the champion's importance, `distils` for what the champion said of every draw; `tuning` says
    which weights learn, `mixes` that images of a batch are mixed where there is a memory, `stays` that a candidate may
    end between the champion and what was learnt. `step_share`, in (0, 1], is the part of an update's steps that it
    takes where it has a memory to replay.
    """

    name: str
    summary: str
    plugins: Callable[[StrategyContext], Sequence[SupervisedPlugin]]
    replays: bool = False
    regularises: bool = False
    distils: bool = False
    joint: bool = False
    mixes: bool = False
    stays: bool = False
    step_share: float = 1.0
    tuning: Tuning = WHOLE
