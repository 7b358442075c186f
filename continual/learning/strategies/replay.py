"""Experience replay (Rolnick et al. 2019): half of every batch comes from a small memory of past samples."""

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ExemplarsBuffer

from continual.learning.strategies.strategy import Strategy, StrategyContext


class DrawnBuffer(ExemplarsBuffer):  # type: ignore[misc]  # Avalanche ships no types
    """A buffer already drawn from our own memory of sample ids.

    Avalanche's own buffers keep every past dataset alive; this one holds a lazy dataset and never grows.
    """

    def __init__(self, drawn: Any) -> None:
        super().__init__(max_size=len(drawn))
        self.buffer = drawn

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Nothing to add after an experience: which samples stay in the memory is settled outside the loop."""

    def resize(self, strategy: Any, new_size: int) -> None:  # noqa: ARG002 (Avalanche's signature)
        """Refused: the memory's size belongs to the change plan."""
        raise RuntimeError(f"the replay memory cannot be resized to {new_size} during an update; change the plan")


def replay_plugins(context: StrategyContext) -> Sequence[SupervisedPlugin]:
    """Avalanche's replay plugin over the drawn memory; none where there is no past."""
    if context.memory is None:
        return ()
    half = context.batch_size // 2
    policy = DrawnBuffer(context.memory)
    return (ReplayPlugin(policy.max_size, batch_size=half, batch_size_mem=half, storage_policy=policy),)


REPLAY = Strategy("replay", "half of each batch from a small memory", replay_plugins, replays=True, stays=True)
