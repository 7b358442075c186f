"""Update strategies: one file each, one entry in `STRATEGIES`; a conformance suite runs over the dict.

`REFERENCES` are trained for comparison only: what they end with is no adapter on a frozen backbone.
"""

from collections.abc import Mapping

from continual.domain.errors import StreamError
from continual.learning.strategies.der import DER
from continual.learning.strategies.discriminative import DISCRIMINATIVE
from continual.learning.strategies.ewc import EWC
from continual.learning.strategies.full import FULL
from continual.learning.strategies.gradual_unfreezing import GRADUAL_UNFREEZING
from continual.learning.strategies.joint import JOINT
from continual.learning.strategies.linear_probe import LINEAR_PROBE
from continual.learning.strategies.lwf import LWF
from continual.learning.strategies.naive import NAIVE
from continual.learning.strategies.replay import REPLAY
from continual.learning.strategies.replay_ewc import REPLAY_EWC
from continual.learning.strategies.replay_lwf import REPLAY_LWF
from continual.learning.strategies.replay_mix import REPLAY_MIX
from continual.learning.strategies.replay_mix_ewc import REPLAY_MIX_EWC
from continual.learning.strategies.strategy import Importance, Strategy, StrategyContext

_LOSSES = (NAIVE, REPLAY, EWC, LWF, REPLAY_EWC, REPLAY_LWF, REPLAY_MIX, REPLAY_MIX_EWC, DER, JOINT)
_TUNING_MODES = (LINEAR_PROBE, GRADUAL_UNFREEZING, DISCRIMINATIVE)

STRATEGIES: Mapping[str, Strategy] = {entry.name: entry for entry in (*_LOSSES, *_TUNING_MODES)}
REFERENCES: Mapping[str, Strategy] = {entry.name: entry for entry in (FULL,)}


def strategy_named(name: str) -> Strategy:
    """The strategy or reference of that name. Raises StreamError when there is none."""
    found = STRATEGIES.get(name) or REFERENCES.get(name)
    if found is None:
        raise StreamError(f"no strategy {name!r}; choose one of {', '.join(STRATEGIES)}")
    return found


def update_strategy(name: str) -> Strategy:
    """The strategy of that name, which may make a version. Raises StreamError for a reference or when there is none."""
    if name in REFERENCES:
        raise StreamError(
            f"strategy {name!r} makes no version: a version is an adapter on a frozen backbone, and a backbone that "
            f"was tuned itself is another one, which no earlier version fits; compare it by `continual benchmark "
            f"--strategies {name}`, or choose one of {', '.join(STRATEGIES)}"
        )
    return strategy_named(name)


__all__ = [
    "REFERENCES",
    "STRATEGIES",
    "Importance",
    "Strategy",
    "StrategyContext",
    "strategy_named",
    "update_strategy",
]
