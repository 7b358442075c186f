"""Permutations of subjects, and what their scores make of an observed one; knows nothing of how a score comes about."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

ROUNDING = 1e-12

Groups = Bool[np.ndarray, "group subject"]
"""Which subjects make a group, a row each."""


def permuted_groups(known: int, new: int, permutations: int, seed: int) -> Groups:
    """Which of `known` + `new` subjects are current: first the last `new`, as they are, then in every permutation.

    The smaller window is drawn: who is in it says who is in the other.
    """
    subjects, few = known + new, min(known, new)
    groups = np.full((1 + permutations, subjects), new > few)
    groups[0] = np.arange(subjects) >= known
    generator = np.random.default_rng(seed)
    for group in groups[1:]:
        group[generator.choice(subjects, few, replace=False, shuffle=False)] = new == few
    return groups


@final
@dataclass(frozen=True, slots=True, eq=False)
class Permuted:
    """The scores of all permutations, largest first."""

    scores: Float[np.ndarray, "permutation"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, "permutation"]) -> "Permuted":
        """In whatever order they come."""
        return cls(np.sort(scores)[::-1])

    def p_value(self, score: float) -> float:
        """(1 + b) / (1 + B), b of B permuted scores being as large (Phipson & Smyth 2010)."""
        as_large = int(np.count_nonzero(self.scores >= score - _tolerance(score)))
        return (1 + as_large) / (1 + len(self.scores))

    def smallest_alarming(self, level: float) -> float:
        """Smallest score with p <= level; infinity when too few permutations were drawn to reach the level."""
        # p <= level leaves room for this many permuted scores at or above the observed one.
        exceedances = int(np.floor(level * (1 + len(self.scores)) + ROUNDING)) - 1
        if exceedances < 0:
            return float("inf")
        edge = float(self.scores[exceedances])
        return edge + 2 * _tolerance(edge)


def _tolerance(score: float) -> float:
    """Scores closer than this are ties, which rounding in the arithmetic would break at random."""
    return ROUNDING * max(1.0, abs(score))
