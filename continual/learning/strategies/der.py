"""Dark experience replay, with labels (DER++; Buzzega et al. 2020): memory draws keep the champion's very scores.

Cross-entropy on memory draws is the replay loop's own. Buzzega et al. store the scores seen when a sample entered the
memory; here they are the champion's, whose whole behaviour is what the gate holds the candidate against.
"""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.distillation import ScoreMatching
from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy, StrategyContext

MATCHING_WEIGHT = 0.5
"""Weight of the squared distance beside the cross-entropy; Buzzega et al. use 0.1 to 1."""


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    replayed = replay_plugins(context)
    if context.teacher is None or not replayed:
        return replayed
    return (*replayed, ScoreMatching(context.teacher, MATCHING_WEIGHT * context.distillation))


DER = Strategy(
    "der++", "replay, and memory keeps the champion's scores", _plugins, replays=True, distils=True, stays=True
)
