"""What labels say about a champion, readable after every label; knows nothing of images, predictions or verdicts.

Labels are read at milestones, after the first 40 (the plan's number), 52, 68 ... of them, in the order in which they
became known: milestone j may err with probability alpha / (j (j + 1)), which sums to alpha over all of them (Darling
and Robbins 1967). So looks may be repeated for ever, and what is said depends on no look's timing.

The test of a milestone: are labels met as often as on the reference? Whole subjects change places between reference and
current, within the class that most of their images have, and p = (1 + b) / (1 + B). A class's fall is its current
outcomes' distance from the pooled mean in standard deviations; the statistic is the sum of the squares of those that
fell. A change of case mix moves neither, and the reference's own luck is in the test, since it changes places, too.

The bounds of a milestone hold the mean over classes of the recall (of masks: the mean Dice): Chernoff's bound for
independent subjects, inverted. A class's outcomes in [0, 1] with mean p have a smaller exponential moment than a coin's
of that mean; a subject's share in several classes enters by Hoelder's inequality as if they moved together; over all
means p that give the same balanced one, the worst is taken by Lagrange duality. It is valid for every sample size, and
wide for outcomes that vary less than a coin, as Dice does.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from continual.domain.drift import RiskEvidence
from continual.domain.errors import WindowError

GROWTH = 1.3
"""Labels from milestone to milestone."""
ENOUGH = 20
"""Draws that show as large a fall end the test: p-values near the milestone's level rest on about as many."""
DRAWS_AT_ONCE = 500
MOST_DRAWS = 9999
MEANS = np.linspace(0, 1, 201)
TILTS = np.geomspace(0.5, 2000, 40)
PRICES = np.concatenate([-np.geomspace(1000, 0.05, 40), np.geomspace(0.05, 1000, 40)])
"""Grids of the bound: possible recalls, Chernoff's exponent, Lagrange's multiplier. Any exponent and any multiplier
give a valid bound, so a coarse grid costs width, never validity."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """How well each labelled image was met, in [0, 1] (1: its label was predicted; or Dice), with class and subject.

    In the order in which labels became known. Masks have one class for all. Raises WindowError for unequal lengths or
    a value outside [0, 1].
    """

    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    met: Float[np.ndarray, "sample"]

    def __post_init__(self) -> None:
        if not len(self.subjects) == len(self.classes) == len(self.met):
            raise WindowError(
                f"outcomes: {len(self.subjects)} subjects, {len(self.classes)} classes and {len(self.met)} values; "
                "pass one of each per image"
            )
        if not np.all((self.met >= 0) & (self.met <= 1)):
            raise WindowError("outcomes: a value is no number from 0 to 1; leave that image out")

    def first(self, count: int) -> "Outcomes":
        """Those of the first `count` images."""
        return Outcomes(self.subjects[:count], self.classes[:count], self.met[:count])

    def of(self, classes: Sequence[str]) -> "Outcomes":
        """Those of some classes."""
        rows = [place for place, name in enumerate(self.classes) if name in set(classes)]
        return Outcomes(
            tuple(self.subjects[row] for row in rows), tuple(self.classes[row] for row in rows), self.met[rows]
        )

    @property
    def balanced(self) -> float:
        """Mean over the classes that are there of the mean outcome of their images."""
        names = np.asarray(self.classes)
        return float(np.mean([self.met[names == name].mean() for name in np.unique(names)]))


def milestones(labelled: int, first: int) -> Iterator[tuple[int, int]]:
    """Number, from 1, and labelled images of every milestone that is reached, the first at `first` images."""
    number, images = 1, max(first, 1)
    while images <= labelled:
        yield number, images
        number, images = number + 1, math.ceil(images * GROWTH)


def level_of(milestone: int, alpha: float) -> float:
    """The error that a milestone may make."""
    return alpha / (milestone * (milestone + 1))


def risk_evidence(reference: Outcomes, current: Outcomes, first: int, alpha: float, seed: int) -> RiskEvidence | None:
    """What the labels since the promotion say; None before the first milestone, or where no class is in both.

    Where nothing changes, `called` is ever true with probability at most `alpha`, and the bounds ever miss with the
    same, however many looks there are.
    """
    both = sorted(set(reference.classes) & set(current.classes))
    known, new = reference.of(both), current.of(both)
    reached = list(milestones(len(new.met), first))
    if not reached:
        return None
    for milestone, images in reached:
        level = level_of(milestone, alpha)
        p_value = fall_p_value(known, new.first(images), level, seed + milestone)
        if p_value <= level:
            break
    newest, read = reached[-1]
    low, high = bounds(new.first(read), level_of(newest, alpha))
    return RiskEvidence(low, high, 1 - alpha, p_value, level, milestone, read)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Mean outcome of each subject in each class, and whether it has one there."""

    met: Float[np.ndarray, "subject klass"]
    there: Bool[np.ndarray, "subject klass"]
    main: Int[np.ndarray, "subject"]
    """The class that most of a subject's images have."""


def _table(outcomes: Outcomes, classes: Sequence[str]) -> _Table:
    names, codes = np.unique(np.asarray(outcomes.subjects), return_inverse=True)
    places = np.array([classes.index(name) for name in outcomes.classes])
    count, total = (np.zeros((len(names), len(classes))) for _ in range(2))
    np.add.at(count, (codes, places), 1)
    np.add.at(total, (codes, places), outcomes.met)
    return _Table(total / np.maximum(count, 1), count > 0, count.argmax(axis=1))


def fall_p_value(reference: Outcomes, current: Outcomes, level: float, seed: int) -> float:
    """Share of exchanges of subjects that show as large a fall as was seen, in (0, 1]; small: labels are met less."""
    classes = sorted(set(reference.classes) & set(current.classes))
    if not classes:
        return 1.0
    known, new = (_table(outcomes.of(classes), classes) for outcomes in (reference, current))
    there = np.vstack([known.there, new.there])
    met = np.vstack([known.met, new.met])
    pooled = met.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    residual = np.where(there, met - pooled, 0.0)
    is_new = np.arange(len(there)) >= len(known.main)
    strata = np.concatenate([known.main, new.main])
    seen = _fall(is_new[None, :], residual, there)[0]
    random = np.random.default_rng(seed)
    wanted = min(MOST_DRAWS, math.ceil(ENOUGH / level))
    draws = as_large = 0
    # Once enough are as large, the p-value is above the level whatever the other draws would show.
    while draws < wanted and as_large < ENOUGH:
        drawn = _exchanged(is_new, strata, min(DRAWS_AT_ONCE, wanted - draws), random)
        as_large += int(np.count_nonzero(_fall(drawn, residual, there) >= seen - 1e-9))
        draws += len(drawn)
    return (1 + as_large) / (1 + draws)


def _fall(
    is_new: Bool[np.ndarray, "draw subject"],
    residual: Float[np.ndarray, "subject klass"],
    there: Bool[np.ndarray, "subject klass"],
) -> Float[np.ndarray, "draw"]:
    marks = is_new.astype(float)
    subjects = there.sum(axis=0)
    now = marks @ there
    spread = (residual**2).sum(axis=0) / np.maximum(subjects - 1, 1)
    variance = now * (subjects - now) / np.maximum(subjects, 1) * spread
    below = np.maximum(-(marks @ residual), 0)
    squared: Float[np.ndarray, "draw klass"] = below**2 / np.where(variance > 0, variance, np.inf)
    fallen: Float[np.ndarray, "draw"] = squared.sum(axis=1)
    return fallen


def _exchanged(
    is_new: Bool[np.ndarray, "subject"], strata: Int[np.ndarray, "subject"], draws: int, random: np.random.Generator
) -> Bool[np.ndarray, "draw subject"]:
    """Who is called new in each draw: as many of each stratum as are, at random."""
    drawn = np.zeros((draws, len(is_new)), dtype=bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        order = random.random((draws, len(rows))).argsort(axis=1)
        drawn[:, rows] = order < np.count_nonzero(is_new[rows])
    return drawn


def bounds(outcomes: Outcomes, level: float) -> tuple[float, float]:
    """Lowest and highest balanced mean that the outcomes do not speak against at this level, two-sided."""
    classes = sorted(set(outcomes.classes))
    table = _table(outcomes, classes)
    balanced = float(np.mean(table.met.sum(axis=0) / table.there.sum(axis=0)))
    high = _highest(table, balanced, level / 2)
    mirrored = _Table(np.where(table.there, 1 - table.met, 0.0), table.there, table.main)
    return 1 - _highest(mirrored, 1 - balanced, level / 2), high


def _highest(table: _Table, balanced: float, level: float) -> float:
    """The highest balanced mean under which one as low as `balanced` is not rarer than `level`."""
    klasses = table.there.shape[1]
    # Subjects of the same classes have the same weights: each kind is worked out once.
    weight, alike = np.unique(table.there / (klasses * table.there.sum(axis=0)), axis=0, return_counts=True)
    total = weight.sum(axis=1)
    share = alike[:, None] * weight / total[:, None]
    means = np.linspace(balanced, 1, 401)
    chance = np.full(len(means), np.inf)
    for tilt in TILTS:
        logs = np.log1p(-np.minimum((1 - np.exp(-tilt * total))[:, None] * MEANS, 1 - 1e-12))
        # log E exp(-tilt * outcomes), class by class, at each possible recall
        moments = share.T @ logs
        worst = (moments + PRICES[:, None, None] * MEANS / klasses).max(axis=2).sum(axis=1)
        # log P(balanced mean as low | true mean), the smallest over exponents and multipliers
        rarest = (worst[:, None] - PRICES[:, None] * means).min(axis=0) + tilt * balanced
        chance = np.minimum(chance, rarest)
    possible = means[chance >= math.log(level)]
    return float(possible.max()) if possible.size else balanced
