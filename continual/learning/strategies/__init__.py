"""Update strategies: one file each, one entry in `STRATEGIES`; a conformance suite runs over the dict."""

from collections.abc import Mapping

from continual.learning.strategies.der import DER
from continual.learning.strategies.discriminative import DISCRIMINATIVE
from continual.learning.strategies.ewc import EWC
from continual.learning.strategies.gradual_unfreezing import GRADUAL_UNFREEZING
from continual.learning.strategies.joint import JOINT
from continual.learning.strategies.linear_probe import LINEAR_PROBE
from continual.learning.strategies.lwf import LWF
from continual.learning.strategies.naive import NAIVE
from continual.learning.strategies.replay import REPLAY
from continual.learning.strategies.replay_ewc import REPLAY_EWC
from continual.learning.strategies.replay_lwf import REPLAY_LWF
from continual.learning.strategies.strategy import Importance, Strategy, StrategyContext

_LOSSES = (NAIVE, REPLAY, EWC, LWF, REPLAY_EWC, REPLAY_LWF, DER, JOINT)
_TUNING_MODES = (LINEAR_PROBE, GRADUAL_UNFREEZING, DISCRIMINATIVE)

STRATEGIES: Mapping[str, Strategy] = {entry.name: entry for entry in (*_LOSSES, *_TUNING_MODES)}

__all__ = ["STRATEGIES", "Importance", "Strategy", "StrategyContext"]
