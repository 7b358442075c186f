"""`replay_mix` whose weights are held by their importance, the more the smaller the memory is.

Mixtures of few remembered images are soon known by heart, too; what those images leave open, weight consolidation
(Kirkpatrick et al. 2017) decides by what the champion's weights mattered for. Figures: `docs/decisions/0038`.
"""

from collections.abc import Sequence
from dataclasses import replace

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.ewc import ewc_plugins
from continual.learning.strategies.replay_lwf import replay_lwf_plugins
from continual.learning.strategies.strategy import Strategy, StrategyContext

SMALL_MEMORY = 50
"""Images: a memory of this size or smaller is helped by the full strength, a larger one in inverse proportion."""


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    share = SMALL_MEMORY / max(SMALL_MEMORY, context.remembered)
    held = replace(context, regularisation=share * context.regularisation)
    return (*replay_lwf_plugins(held), *ewc_plugins(held))


REPLAY_MIX_EWC = Strategy(
    "replay_mix_ewc",
    "replay_mix and weight consolidation",
    _plugins,
    replays=True,
    regularises=True,
    distils=True,
    mixes=True,
    step_share=0.75,
)
