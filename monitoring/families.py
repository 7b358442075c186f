"""All families of signals of two windows, tested and corrected; knows nothing of verdicts or of time.

Holm's correction holds a level twice: inside a family over its columns, which makes the family's p-value its smallest
adjusted one, and over the families, each tested at the level over the families not yet rejected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Signal, SignalFamily
from monitoring.detectors import DETECTORS, Effort, Finding
from monitoring.evidence import e_value
from monitoring.multiplicity import critical_levels, holm
from monitoring.windows import Window, draw_subjects

MOST_SUBJECTS = 1000
"""A larger window is thinned to this many subjects, drawn by the plan's seed: more power is of no use."""


def _thin(window: Window, plan: ChangePlan) -> Window:
    return draw_subjects(window, MOST_SUBJECTS, plan.seed)


@dataclass(frozen=True, slots=True)
class FamilyTest:
    """A tested family with its signals and the smallest score that would have alarmed."""

    name: SignalFamily
    signals: tuple[Signal, ...]
    smallest_detectable: float


Measured = tuple[tuple[str, Finding], ...]
"""Findings, each with the name of its detector."""


def compare_families(reference: Window, current: Window, plan: ChangePlan) -> tuple[FamilyTest, ...]:
    """Every family that both windows have and in which something varies, at the first look's share of alpha."""
    reference, current = _thin(reference, plan), _thin(current, plan)
    alpha = plan.alpha * plan.first_look_share
    # With fewer permutations than this no family could alarm after Holm.
    level = alpha / len(SignalFamily)
    effort = Effort(max(plan.permutations, math.ceil(1 / level) - 1), plan.seed, level)
    measured = {family: found for family in SignalFamily if (found := _measure(reference, current, family, effort))}
    adjusted = {family: holm([finding.p_value for _, finding in found]) for family, found in measured.items()}
    levels = critical_levels([min(values) for values in adjusted.values()], alpha)
    return tuple(
        _family(family, measured[family], adjusted[family], level)
        for family, level in zip(measured, levels, strict=True)
    )


def _measure(reference: Window, current: Window, family: SignalFamily, effort: Effort) -> Measured:
    return tuple(
        (detector.name, finding)
        for detector in DETECTORS.values()
        if family in detector.families
        for finding in detector.measure(reference, current, family, effort)
    )


def _family(name: SignalFamily, found: Measured, adjusted: Sequence[float], level: float) -> FamilyTest:
    signals = tuple(
        Signal(
            family=name,
            name=finding.name,
            detector=detector,
            score=finding.score,
            p_value=finding.p_value,
            adjusted_p_value=corrected,
            alarm=corrected <= level,
            detail={**finding.detail, "level": level},
            e_value=e_value(corrected),
        )
        for (detector, finding), corrected in zip(found, adjusted, strict=True)
    )
    # The first column Holm rejects must reach its share of the level; later ones have it easier.
    smallest = min(finding.smallest_alarming(level / len(found)) for _, finding in found)
    return FamilyTest(name, signals, smallest)
