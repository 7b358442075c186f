"""Replay and distillation together: memory draws are distilled in full, new ones by the champion's belief in them."""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.lwf import lwf_plugins
from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy, StrategyContext


def replay_lwf_plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    """Avalanche's replay over the drawn memory, and distillation from the champion; none where there is no past."""
    return (*replay_plugins(context), *lwf_plugins(context))


REPLAY_LWF = Strategy(
    "replay_lwf",
    "replay, and memory keeps the champion's answers",
    replay_lwf_plugins,
    replays=True,
    distils=True,
    stays=True,
)
