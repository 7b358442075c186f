"""Fine-tuning on the new experience alone: the lower bound every strategy is held against."""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.strategy import Strategy, StrategyContext


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:  # noqa: ARG001 (one signature for all strategies)
    return ()


NAIVE = Strategy("naive", "the new site alone; forgets", _plugins)
