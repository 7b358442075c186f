"""Update strategies: one file each, one entry in `STRATEGIES`; a conformance suite runs over the dict."""

from collections.abc import Mapping

from continual.learning.strategies.ewc import EWC
from continual.learning.strategies.joint import JOINT
from continual.learning.strategies.naive import NAIVE
from continual.learning.strategies.replay import REPLAY
from continual.learning.strategies.replay_ewc import REPLAY_EWC
from continual.learning.strategies.strategy import Importance, Strategy, StrategyContext

STRATEGIES: Mapping[str, Strategy] = {entry.name: entry for entry in (NAIVE, REPLAY, EWC, REPLAY_EWC, JOINT)}

__all__ = ["STRATEGIES", "Importance", "Strategy", "StrategyContext"]
