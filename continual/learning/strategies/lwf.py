"""Learning without forgetting (Li & Hoiem 2016): on the new draws the network is held to what the champion said.

Li & Hoiem give each task a head of its own; here sites share one, so the champion can contradict a label. Each new draw
therefore counts as much as the champion believed in its label.
"""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.distillation import Distillation
from continual.learning.strategies.strategy import Strategy, StrategyContext


def lwf_plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    """Distillation from the champion; none where there is no champion."""
    return () if context.teacher is None else (Distillation(context.teacher, context.distillation),)


LWF = Strategy(
    "lwf", "says of new images what the champion said, where it was right", lwf_plugins, distils=True, stays=True
)
