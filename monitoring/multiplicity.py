"""Holm's step-down correction (1979) for several tests at once; knows nothing of what was tested."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in [0, 1], in the order given: at most alpha exactly where Holm rejects at level alpha.

    Needs no independence between the tests, which tags, pixels and embeddings of the same images never have.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def critical_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The largest p-value at which Holm, given all the others, would still reject each test.

    It is alpha over the number of tests left when k of the others have been rejected, alpha / (tests - k). A test
    is rejected exactly when its p-value does not exceed its own level.
    """
    return [_critical_level([p for j, p in enumerate(p_values) if j != i], alpha) for i in range(len(p_values))]


def _critical_level(others: Sequence[float], alpha: float) -> float:
    left = len(others) + 1
    for p_value in sorted(others):
        if p_value > alpha / left:
            break
        left -= 1
    return alpha / left
