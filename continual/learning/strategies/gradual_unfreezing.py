"""Gradual unfreezing (Howard & Ruder 2018): the head learns first, then block after block from the top."""

from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy
from continual.learning.strategies.tuning import Tuning, full_pace

LAST_OPENING = 0.5
"""Share of the steps after which the deepest block learns too: half of them are left for all together."""


def _from_the_top(depth: int, deepest: int) -> float:
    return LAST_OPENING * depth / max(deepest, 1)


GRADUAL_UNFREEZING = Strategy(
    "gradual_unfreezing",
    "replay; the head first, then blocks from the top",
    replay_plugins,
    replays=True,
    tuning=Tuning(full_pace, _from_the_top),
)
