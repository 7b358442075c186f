"""Predictions with the labels that came for them, summed up by version and month; knows nothing of where they lie."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from continual.domain.metrics import balanced_accuracy

NOBODYS = ""
"""The site of a picture that came without one."""
DRAWS = 1000
"""Bootstrap draws of whole subjects for an interval."""
INTERVAL = (0.025, 0.975)
FEWEST_SUBJECTS = 2
"""One subject cannot be resampled into anything but itself."""
SEED = 20260301
_Group: TypeAlias = tuple[str, int, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a version first said of a picture: a probability per class, in [0, 1].

    `digest` names the picture's content; `site` is empty where nobody said whose picture it is.
    """

    adapter: str
    version: int
    site: str
    digest: str
    scores: Mapping[str, float]
    predicted_at: datetime

    @property
    def predicted(self) -> str:
        """The likeliest class; of equals the first by name."""
        return max(sorted(self.scores), key=self.scores.__getitem__)


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
    """A prediction and the label that came for its picture, known to the registry since `known_at`.

    `subject` is None where the picture was never taken in. `trained_on` says that the version learnt this very picture.
    `site` is where it was taken in or labelled, else where it was predicted; empty where nobody said.
    """

    prediction: Prediction
    label: str
    known_at: datetime
    subject: str | None = None
    trained_on: bool = False
    site: str = ""

    @property
    def scored(self) -> bool:
        """Whether it says something of the version: its label is a class of it, which it did not learn from this."""
        return self.label in self.prediction.scores and not self.trained_on


@dataclass(frozen=True, slots=True)
class Performance:
    """A version on what it predicted: balanced accuracy in [0, 1] with its 95 % interval, of one site, month or all.

    `low` and `high` are None for fewer than two subjects, all three where nothing could be scored. `unscored` counts
    labels that are no class of the version, and pictures that it was trained on.
    """

    adapter: str
    version: int
    site: str | None
    """Of the picture: where it was taken in or labelled, else where it was predicted; empty: nobody said; None: all."""
    month: str | None
    """Of the prediction, in UTC: 2026-03; None for all months."""
    labelled: int
    subjects: int
    balanced_accuracy: float | None
    low: float | None
    high: float | None
    unscored: int


def performance_of(
    labelled: Iterable[LabelledPrediction], *, by_site: bool = False, by_month: bool = False
) -> list[Performance]:
    """One row per adapter and version and, if asked, per site and month of prediction, in that order.

    The interval is a bootstrap over subjects (Efron & Tibshirani 1993, ch. 13); a picture that was never taken in is a
    subject of its own.
    """
    groups: dict[_Group, list[LabelledPrediction]] = defaultdict(list)
    for each in labelled:
        said = each.prediction
        month = f"{said.predicted_at:%Y-%m}" if by_month else None
        groups[said.adapter, said.version, each.site if by_site else None, month].append(each)
    ordered = sorted(groups, key=lambda key: (key[0], key[1], key[2] or "", key[3] or ""))
    return [_performance(key, groups[key]) for key in ordered]


def _performance(key: _Group, group: Sequence[LabelledPrediction]) -> Performance:
    scored = [each for each in group if each.scored]
    unscored = len(group) - len(scored)
    if not scored:
        return Performance(*key, 0, 0, None, None, None, unscored)
    subjects = [f"{each.site}/{each.subject or each.prediction.digest}" for each in scored]
    labels, predicted = [each.label for each in scored], [each.prediction.predicted for each in scored]
    count = len(set(subjects))
    low, high = _interval(subjects, labels, predicted) if count >= FEWEST_SUBJECTS else (None, None)
    value = balanced_accuracy(labels, predicted)
    return Performance(*key, len(scored), count, value, low, high, unscored)


def _interval(subjects: Sequence[str], labels: Sequence[str], predicted: Sequence[str]) -> tuple[float, float]:
    names, units = np.unique(np.asarray(subjects), return_inverse=True)
    classes, places = np.unique(np.asarray(labels), return_inverse=True)
    there, right = (np.zeros((len(names), len(classes))) for _ in range(2))
    np.add.at(there, (units, places), 1)
    np.add.at(right, (units, places), np.asarray(labels) == np.asarray(predicted))
    random = np.random.default_rng(SEED)
    times = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    drawn = _mean_recall(times @ right, times @ there)
    low, high = np.quantile(drawn, INTERVAL)
    return float(low), float(high)


def _mean_recall(
    right: Float[np.ndarray, "draw klass"], there: Float[np.ndarray, "draw klass"]
) -> Float[np.ndarray, "draw"]:
    """Over the classes that a draw has."""
    recall = np.divide(right, there, out=np.zeros_like(right), where=there > 0)
    means: Float[np.ndarray, "draw"] = recall.sum(axis=1) / (there > 0).sum(axis=1)
    return means
