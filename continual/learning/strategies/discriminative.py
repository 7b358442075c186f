"""Discriminative rates (Howard & Ruder 2018): each block learns 2.6 times slower than the one above it."""

from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy
from continual.learning.strategies.tuning import Tuning, from_the_start

DECAY = 2.6
"""Howard & Ruder's factor between the rates of neighbouring layers."""


def _slower_below(depth: int) -> float:
    """1 for the head, which has a rate of its own, and for the last block; less for every block below it."""
    return float(DECAY ** -max(depth - 1, 0))


DISCRIMINATIVE = Strategy(
    "discriminative",
    "replay; lower blocks learn more slowly",
    replay_plugins,
    replays=True,
    tuning=Tuning(_slower_below, from_the_start),
)
