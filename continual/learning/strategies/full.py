"""Full fine-tuning: every weight of the backbone learns, on the new site alone. A reference, never registered."""

from collections.abc import Sequence

from avalanche.core import SupervisedPlugin

from continual.learning.strategies.strategy import Strategy, StrategyContext
from continual.learning.strategies.tuning import Tuning, from_the_start

BACKBONE_PACE = 0.05
"""Factor on the adapter's rate: 5e-5 at the usual 1e-3, as pretrained weights bear no larger steps."""


def _slow_backbone(depth: int) -> float:
    return BACKBONE_PACE if depth else 1.0


def _plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:  # noqa: ARG001 (one signature for all strategies)
    return ()


FULL = Strategy(
    "full",
    "the new site alone, the whole backbone; a reference",
    _plugins,
    tuning=Tuning(_slow_backbone, from_the_start),
)
