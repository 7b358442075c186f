"""Which of several candidates to keep: the cheapest that is not worse; knows nothing of training or scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SAME_COST = 1.25
"""Costs up to this many times the smallest count as equal: processor seconds differ by that from run to run."""


@dataclass(frozen=True, slots=True)
class CandidateFigures:
    """One candidate on validation data; scores in [0, 1], higher is better.

    `validation` is per site, `mean` its mean over all sites. `worst_change` is the smallest difference, candidate minus
    champion, over the sites that the champion learnt, `worst_site` where it is; None where there is nothing to compare.
    The seconds are those of learning alone, on the wall and on the processors.
    """

    strategy: str
    validation: Mapping[str, float]
    mean: float
    worst_site: str | None
    worst_change: float | None
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, why, and every candidate's figures. `tolerance` is what counts as not worse than the best mean.

    `set_aside` names candidates that lost more than `past_site_drop` at a site that the champion had learnt.
    """

    chosen: str
    reason: str
    tolerance: float
    past_site_drop: float
    candidates: tuple[CandidateFigures, ...]
    set_aside: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "candidates": [asdict(each) for each in self.candidates]}

    def without_costs(self) -> dict[str, Any]:
        """Plain JSON of what is the same whenever the same choice is made again: all but the seconds."""
        record = self.as_record()
        for row in record["candidates"]:
            del row["seconds"], row["cpu_seconds"]
        return record


def choose(figures: Sequence[CandidateFigures], tolerance: float, past_site_drop: float) -> Choice:
    """The cheapest whose mean is at most `tolerance` below the best; of equal costs the earlier. `figures`: at least 1.

    A candidate that loses more than `past_site_drop` at a site of the champion's is set aside, for the gate would most
    likely refuse it; when all of them do, none is.
    """
    losing = [each for each in figures if each.worst_change is not None and each.worst_change < -past_site_drop]
    eligible = [each for each in figures if each not in losing] or list(figures)
    best = max(eligible, key=lambda each: each.mean)
    as_good = [each for each in eligible if each.mean >= best.mean - tolerance]
    least = min(each.cpu_seconds for each in as_good)
    chosen = next(each for each in as_good if each.cpu_seconds <= SAME_COST * least)
    return Choice(
        chosen=chosen.strategy,
        reason=_reason(chosen, best, as_good, tolerance) + _aside(losing, eligible, past_site_drop),
        tolerance=tolerance,
        past_site_drop=past_site_drop,
        candidates=tuple(figures),
        set_aside=tuple(each.strategy for each in losing if each not in eligible),
    )


def _reason(
    chosen: CandidateFigures, best: CandidateFigures, as_good: Sequence[CandidateFigures], tolerance: float
) -> str:
    if len(as_good) == 1:
        return f"{chosen.strategy} has the best validation mean, {chosen.mean:.3f}; no other is within {tolerance:g}."
    against = (
        "the best"
        if chosen.mean >= best.mean
        else f"within {tolerance:g} of the best, {best.mean:.3f} of {best.strategy}"
    )
    return (
        f"{chosen.strategy} is the cheapest of the {len(as_good)} that are not worse: its validation mean, "
        f"{chosen.mean:.3f}, is {against}."
    )


def _aside(losing: Sequence[CandidateFigures], eligible: Sequence[CandidateFigures], drop: float) -> str:
    if not losing:
        return ""
    if losing[0] in eligible:
        return f" Every candidate loses more than {drop:g} at a past site, so none was set aside for it."
    told = ", ".join(f"{each.strategy} ({each.worst_change:+.3f} at {each.worst_site})" for each in losing)
    return f" Set aside for losing more than {drop:g} at a past site: {told}."
