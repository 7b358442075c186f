"""Only the head learns, on replay and new images; the champion's LoRA weights stay bit for bit."""

from continual.learning.strategies.replay import replay_plugins
from continual.learning.strategies.strategy import Strategy
from continual.learning.strategies.tuning import NEVER, Tuning, full_pace


def _head_only(depth: int, _deepest: int) -> float:
    return 0.0 if depth == 0 else NEVER


LINEAR_PROBE = Strategy(
    "linear_probe",
    "replay; the head alone learns",
    replay_plugins,
    replays=True,
    tuning=Tuning(full_pace, _head_only),
)
