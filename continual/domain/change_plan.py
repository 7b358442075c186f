"""The change plan: the rule book written before any update, and its check; knows nothing of where it is kept."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from continual.domain.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What may change, how it is checked and who approves (in the sense of FDA's predetermined change control plan).

    Metrics are in [0, 1], higher is better; shares and levels in (0, 1).
    """

    strategies: tuple[str, ...] = ("replay_ewc",)
    replay_samples: int = 200
    past_site_margin: float = -0.05
    """Gate: the lower bound of candidate minus champion must lie above this on every past site."""
    new_site_gain: float = 0.0
    """Gate: candidate minus champion on a new site must exceed this."""
    confidence: float = 0.90
    """One-sided confidence of the gate's bootstrap bound."""
    bootstrap_draws: int = 2000
    alpha: float = 0.05
    """False-alarm level of one look at one site, all families together."""
    minimum_subjects: int = 10
    """Fewer subjects in a window than this is `insufficient_data`."""
    permutations: int = 999
    harm_margin: float = 0.05
    """Performance below the reference by more than this is harm."""
    quarantine_limit: float = 0.20
    """A larger share of quarantined images is a `data_fault`."""
    minimum_labelled: int = 40
    """Fewer labelled training samples than this cannot carry an update."""
    new_classes: bool = False
    """Whether a label that the adapter never saw grows its head; otherwise it is held back as a likely error."""
    seed: int = 20260301

    def __post_init__(self) -> None:
        if not self.strategies:
            raise SettingsError("change plan: it allows 0 strategies; name at least 1")
        for name in ("confidence", "alpha", "quarantine_limit"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise SettingsError(f"change plan: {name} is {value}, must lie between 0 and 1; correct the plan")
        if self.replay_samples < 0:
            raise SettingsError(f"change plan: replay_samples is {self.replay_samples}, must be 0 or more")
        fewest = math.ceil(1 / self.alpha) - 1
        if self.permutations < fewest:
            raise SettingsError(
                f"change plan: {self.permutations} permutations cannot reach alpha {self.alpha}; use at least {fewest}"
            )

    def as_record(self) -> dict[str, Any]:
        """The plan as plain JSON, for the version's record and the ledger."""
        return asdict(self)
