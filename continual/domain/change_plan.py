"""The change plan: the rule book written before any update, and its check; knows nothing of where it is kept."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError

LONGEST_DAYS = 36_500
"""A hundred years: what waits longer passes the end of the calendar."""
FEWEST_LABELLED: Mapping[Task, int] = {Task.CLASSIFICATION: 40, Task.SEGMENTATION: 10}
"""Fewest labelled training samples that an update needs where nobody says: a mask is a label for every pixel."""


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What may change, how it is checked and who approves (in the sense of FDA's predetermined change control plan).

    Metrics are in [0, 1], higher is better; shares and levels in (0, 1).
    """

    strategies: tuple[str, ...] = ("replay_ewc",)
    replay_samples: int = 200
    """Most images the replay memory remembers."""
    replay_bytes: int = 0
    """Most bytes that the stored images of the replay memory, or its kept activations, take together; 0: no bound."""
    replay_policy: str = "class_and_site_balanced"
    """Which images the replay memory keeps: a name in `continual.learning.POLICIES`."""
    keep_images: bool = True
    """Whether images stay stored once they were learnt; otherwise only activations stay, those that learning needs."""
    past_site_margin: float = -0.10
    """Gate: the lower bound of candidate minus champion must lie above this on every past site."""
    past_site_drop: float = 0.03
    """Gate: the observed loss on a past site must not be larger than this."""
    new_site_gain: float = 0.0
    """Gate: candidate minus champion on a new site must exceed this."""
    confidence: float = 0.90
    """One-sided confidence of the gate's bootstrap bound."""
    bootstrap_draws: int = 2000
    alpha: float = 0.05
    """How often a site where nothing changes is ever called drifted between two promotions, all looks together."""
    first_look_share: float = 0.5
    """Share of alpha that the first look after a promotion spends on its tests; the rest is for evidence over time."""
    window_subjects: int = 20
    """A scheduled look waits until this many new subjects have come, or until the window is `window_days` old."""
    window_days: float = 7.0
    minimum_subjects: int = 10
    """Fewer subjects in a window than this is `insufficient_data`."""
    permutations: int = 999
    harm_margin: float = 0.05
    """Performance below the reference by more than this is harm."""
    harm_cleared: float | None = None
    """Harm that was found stands until the fall is at most this, or until a promotion; None: `harm_margin` itself."""
    rolling_windows: int = 4
    """How many closed windows, lagging one behind, make the rolling reference once drift is called; 0: none."""
    cooldown_days: float = 0.0
    """After an update that the gate judged its site has no other before this; an urgent one does not wait."""
    updates_per_month: int = 0
    """Most updates of an adapter that the gate judges in any 30 days, urgent ones counted; 0: no bound."""
    quarantine_limit: float = 0.20
    """A larger share of quarantined images is a `data_fault`."""
    minimum_labelled: int = FEWEST_LABELLED[Task.CLASSIFICATION]
    """Fewer labelled training samples than this cannot carry an update."""
    new_classes: bool = False
    """Whether a label that the adapter never saw grows its head; otherwise it is held back as a likely error."""
    seed: int = 20260301

    def __post_init__(self) -> None:
        if not self.strategies:
            raise SettingsError("change plan: it allows 0 strategies; name at least 1")
        for name in ("confidence", "alpha", "first_look_share", "quarantine_limit"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise SettingsError(f"change plan: {name} is {value}, must lie between 0 and 1; correct the plan")
        if not 0 <= self.past_site_drop <= 1:
            raise SettingsError(f"change plan: past_site_drop is {self.past_site_drop}, must lie between 0 and 1")
        for name in ("replay_samples", "replay_bytes"):
            value = getattr(self, name)
            if value < 0:
                raise SettingsError(f"change plan: {name} is {value}, must be 0 or more; correct the plan")
        if self.window_subjects < 1:
            raise SettingsError(
                f"change plan: windows of {self.window_subjects} subjects, must be 1 or more; correct the plan"
            )
        self._check_pace()
        fewest = math.ceil(1 / self.alpha) - 1
        if self.permutations < fewest:
            raise SettingsError(
                f"change plan: {self.permutations} permutations cannot reach alpha {self.alpha}; use at least {fewest}"
            )

    def _check_pace(self) -> None:
        """How often and on how little evidence the plan acts again."""
        for name in ("window_days", "cooldown_days"):
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_DAYS:
                raise SettingsError(
                    f"change plan: {name} is {value}, must lie between 0 and {LONGEST_DAYS}; correct the plan"
                )
        for name in ("rolling_windows", "updates_per_month"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingsError(f"change plan: {name} is {value}, must be 0 or more; correct the plan")
        if self.harm_cleared is not None and not self.harm_cleared <= self.harm_margin:
            raise SettingsError(
                f"change plan: harm_cleared is {self.harm_cleared}, must be at most harm_margin {self.harm_margin}; "
                "lower it, or leave it out"
            )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The plan that `as_record` wrote; what an older release did not write yet has its default."""
        return cls(**{**record, "strategies": tuple(record["strategies"])})

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The plan with other values for some of its fields; SettingsError where it cannot have them."""
        return replace(self, **changes)

    def as_record(self) -> dict[str, Any]:
        """The plan as plain JSON, for the version's record and the ledger."""
        return asdict(self)
