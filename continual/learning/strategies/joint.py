"""Training on every site's images together: the upper bound, for comparison only, since it needs all old images."""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.strategy import Strategy, StrategyContext


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:  # noqa: ARG001 (one signature for all strategies)
    return ()


JOINT = Strategy("joint", "all sites at once; the upper bound", _plugins, joint=True)
