"""Evidence over time: what successive windows say together, readable after each; knows nothing of what was tested.

Window by window, each since the promotion is tested ONCE, against the reference and every earlier window pooled. Where
nothing changes all their subjects are exchangeable, and permutation p-values of this kind are then independent and
uniform: given which subjects came so far, which of them came last is a fair draw, whatever the earlier draws were
(conformal prediction's argument, Vovk et al. 2022, ch. 8, with a window in the place of one example). Each p-value
is turned into an e-value, a bet that no fair game lets grow; products of such bets over windows stay fair.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from continual.domain.drift import EvidenceOverTime, SignalFamily
from monitoring.windows import Window

LARGEST_BET = 1e6
"""What one window may add at most: a bet cut down is still fair."""
MOST = 1e12
"""Evidence is read up to here, so that years of products stay finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """The windows of a site that were tested since the promotion, oldest first, and what each added per family.

    None stands for a window whose samples were erased: its bets stay.
    """

    windows: tuple[Window | None, ...] = ()
    e_values: tuple[Mapping[str, float], ...] = ()
    called_at: int | None = None
    """The window, from 1, at which drift was called; what was called stands until the next promotion."""
    harmed: bool = False
    """Harm was found in the last look since the promotion, or before and has not cleared."""

    def since(self, first: int) -> list[Window]:
        """The windows from number `first` on, counted from 1."""
        return [window for window in self.windows[first - 1 :] if window is not None]


def e_value(p_value: float) -> float:
    """The calibrator of Vovk & Wang (2021): mean of k p^(k-1) over k in (0, 1), between 1/2 and `LARGEST_BET`.

    Its mean over uniform p-values is 1, and near p = 0 it is close to the largest a bet can be, 1 / (p ln(p)^2).
    """
    log = math.log(p_value)
    if log > -1e-4:
        return 0.5  # the limit; the formula loses its digits here
    return min(LARGEST_BET, (1 - p_value + p_value * log) / (p_value * log * log))


def evidence_over_time(
    past: Past, p_values: Mapping[SignalFamily, float], threshold: float, *, stands_out: bool = False
) -> EvidenceOverTime:
    """The evidence after one more window, whose smallest adjusted p-value per family is given.

    Drift is called when the evidence reaches the threshold, or when the first window `stands_out` by its own tests.
    Families are averaged, which holds whatever their dependence; one that could not be tested counts as 1.
    """
    now = {family.value: e_value(p_values[family]) if family in p_values else 1.0 for family in SignalFamily}
    logs = {
        name: _log_products([*(window.get(name, 1.0) for window in past.e_values), bet]) for name, bet in now.items()
    }
    families = {name: _mixed(each) for name, each in logs.items()}
    strongest = logs[max(families, key=lambda name: families[name])]
    value, windows = sum(families.values()) / len(families), len(strongest)
    called_now = value >= threshold or (stands_out and windows == 1)
    return EvidenceOverTime(
        value=value,
        threshold=threshold,
        families=families,
        e_values=now,
        windows=windows,
        since=int(strongest.argmax()) + 1,
        called_at=past.called_at or (windows if called_now else None),
    )


def _log_products(bets: Sequence[float]) -> Float[np.ndarray, "window"]:
    """For each window, the logarithm of what betting from it on would have made of 1 by now."""
    logs: Float[np.ndarray, "window"] = np.log(bets)[::-1].cumsum()[::-1]
    return logs


def _mixed(log_products: Float[np.ndarray, "window"]) -> float:
    """A share 1 / (k (k + 1)) of the stake bets from window k on; what waits for later windows still counts as it is.

    Betting from the first window alone would ruin itself in a quiet year, and see nothing after it.
    """
    start = np.arange(1, len(log_products) + 1)
    products = np.exp(np.minimum(log_products, math.log(MOST)))
    return float((products / (start * (start + 1))).sum() + 1 / (len(start) + 1))
