"""What leads to an update, and which updates the gate has judged; knows nothing of how one is made."""

from collections.abc import Sequence
from dataclasses import dataclass

from continual.domain.drift import Action
from registry import JUDGED, Update

MOST_UPDATES = 10_000
"""Updates of an adapter that are read back."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """Which actions lead to an update, whether the change plan's cooldown and budget count, and whether a look is taken
    `now` or, as the scheduled monitor's, when the plan says that one is due.
    """

    actions: tuple[Action, ...]
    paced: bool = True
    now: bool = True


LEARN_ON = Occasion((Action.UPDATE, Action.URGENT_UPDATE))


def judged_updates(updates: Sequence[Update]) -> list[Update]:
    """Those of an adapter's updates that the gate judged, its first versions left out."""
    return [update for update in updates if update.parent is not None and update.outcome in JUDGED]
