"""Replay and elastic weight consolidation together: the default."""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.ewc import ewc_plugins
from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy, StrategyContext


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    return (*replay_plugins(context), *ewc_plugins(context))


REPLAY_EWC = Strategy(
    "replay_ewc", "replay and weight consolidation", _plugins, replays=True, regularises=True, stays=True
)
