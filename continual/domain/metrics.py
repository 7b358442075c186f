"""Classification, segmentation and continual-learning metrics on plain arrays; higher is better, everywhere.

R[i][j] is the metric of row i (the model in service after experience i) on site j; sites stand in stream order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from continual.domain.adapters import Task
from continual.domain.samples import IGNORED

BALANCED_ACCURACY = "balanced_accuracy"
DICE = "dice"
METRICS: Mapping[Task, str] = {Task.CLASSIFICATION: BALANCED_ACCURACY, Task.SEGMENTATION: DICE}
"""What the versions of each task are judged by."""

Matrix = Float[np.ndarray, "row site"]


def task_of(metric: str) -> Task:
    """The task whose versions are judged by this metric; classification for one that is not in `METRICS`."""
    return next((task for task, name in METRICS.items() if name == metric), Task.CLASSIFICATION)


def recall_per_class(labels: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Share of each present class that was recognised, in [0, 1]; classes absent from `labels` do not appear."""
    true, guess = np.asarray(labels), np.asarray(predicted)
    return {str(name): float(np.mean(guess[true == name] == name)) for name in np.unique(true)}


def balanced_accuracy(labels: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean recall over the classes present in `labels`, in [0, 1] (Brodersen et al. 2010).

    Raises ValueError on an empty sequence or unequal lengths.
    """
    if len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels against {len(predicted)} predictions; pass one of each per sample")
    if not labels:
        raise ValueError("balanced accuracy of 0 samples is undefined; pass at least 1")
    return float(np.mean(list(recall_per_class(labels, predicted).values())))


def chance_level(labels: Sequence[str]) -> float:
    """Balanced accuracy that a constant guess reaches: one over the number of classes present."""
    return 1.0 / len(set(labels))


def dice(mask: UInt8[np.ndarray, "height width"], predicted: UInt8[np.ndarray, "height width"], classes: int) -> float:
    """Mean over classes of 2|A and B| / (|A| + |B|), in [0, 1] (Dice 1945; Zijdenbos et al. 1994).

    Over those of the classes 1 to `classes` that the mask or the prediction holds, inside the field of view alone (mask
    other than `IGNORED`); the background, 0, is none of them. 1.0 when nothing is there and nothing was said. Raises
    ValueError on unequal shapes.
    """
    if mask.shape != predicted.shape:
        raise ValueError(f"a mask of shape {mask.shape} against a prediction of shape {predicted.shape}; resample one")
    inside = mask != IGNORED
    true, guess = mask[inside], predicted[inside]
    there, said = (np.bincount(values, minlength=IGNORED + 1)[1 : classes + 1] for values in (true, guess))
    agreed = np.bincount(true[true == guess], minlength=IGNORED + 1)[1 : classes + 1]
    met = there + said > 0
    return float(np.mean(2 * agreed[met] / (there + said)[met])) if met.any() else 1.0


def chance_dice(masks: Iterable[UInt8[np.ndarray, "height width"]], classes: int) -> float:
    """Largest mean Dice that one constant answer, the same class for every pixel, reaches on the masks, in [0, 1].

    The background's answer counts, too: it is right where a mask holds nothing else. Raises ValueError on no masks.
    """
    scores = [[dice(mask, np.full_like(mask, answer), classes) for answer in range(classes + 1)] for mask in masks]
    if not scores:
        raise ValueError("Dice of 0 masks is undefined; pass at least 1")
    return float(np.mean(scores, axis=0).max())


def expected_calibration_error(
    confidence: Float[np.ndarray, "sample"], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, in [0, 1]; LOWER is better (Guo et al. 2017)."""
    edges = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[edges == b].mean() - correct[edges == b].mean()) * np.mean(edges == b) for b in np.unique(edges)
    ]
    return float(np.sum(gaps))


def calibration_floor(confidence: Float[np.ndarray, "sample"], bins: int = 15, draws: int = 200) -> float:
    """The expected calibration error that honest confidences show by chance, in [0, 1], mean of `draws` simulations.

    Each answer is right with just the probability it claims; what is left is how few samples there are (Roelofs et al.
    2022). A measured error near it is no evidence of dishonesty.
    """
    random = np.random.default_rng(len(confidence))
    right = random.random((draws, len(confidence))) < confidence
    return float(np.mean([expected_calibration_error(confidence, drawn, bins) for drawn in right]))


def area_under_roc(
    labels: Sequence[str], classes: Sequence[str], scores: Float[np.ndarray, "sample klass"]
) -> float | None:
    """Mean over classes of the chance that a sample of the class scores above one of another (Hanley & McNeil 1982).

    One against the rest, ties count half, in [0, 1], 0.5 is guessing; columns of `scores` follow `classes`. Classes
    that no sample has, or every sample, are left out; None when that leaves none. Raises ValueError on unequal lengths.
    """
    if scores.shape != (len(labels), len(classes)):
        raise ValueError(f"scores of shape {scores.shape} for {len(labels)} labels and {len(classes)} classes")
    true = np.asarray(labels)
    areas = []
    for column, name in enumerate(classes):
        inside, outside = scores[true == name, column], np.sort(scores[true != name, column])
        if len(inside) and len(outside):
            below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
            areas.append(below.mean() / (2 * len(outside)))
    return float(np.mean(areas)) if areas else None


@dataclass(frozen=True, slots=True)
class StreamScores:
    """Summary of one result matrix; `forgetting` maps each site to best earlier row minus last row (0 for the last)."""

    acc: float
    bwt: float
    fwt: float
    forgetting: Mapping[str, float]
    worst_site: float
    worst_site_drop: float


def average_accuracy(matrix: Matrix) -> float:
    """ACC: mean of the last row (Lopez-Paz & Ranzato 2017, eq. 2)."""
    return float(matrix[-1].mean())


def backward_transfer(matrix: Matrix) -> float:
    """BWT: mean over earlier sites of last minus just-learned score; negative means forgetting (ibid., eq. 3)."""
    last = len(matrix) - 1
    if last == 0:
        return 0.0
    return float(np.mean([matrix[last, j] - matrix[j, j] for j in range(last)]))


def forward_transfer(matrix: Matrix, chance: Float[np.ndarray, "site"]) -> float:
    """FWT: mean over later sites of the score just before learning them, minus chance (ibid., eq. 4)."""
    rows = len(matrix)
    if rows == 1:
        return 0.0
    return float(np.mean([matrix[j - 1, j] - chance[j] for j in range(1, rows)]))


def forgetting_per_site(matrix: Matrix) -> Float[np.ndarray, "site"]:
    """Best earlier row minus last row for every site but the last; negative means it improved (Chaudhry et al. 2018).

    Rows before a site was learnt do not count: nobody forgets what was never taught.
    """
    last = len(matrix) - 1
    return np.array([matrix[j:last, j].max() - matrix[last, j] for j in range(last)])


def summarise(matrix: Sequence[Sequence[float]], sites: Sequence[str], chance: Sequence[float]) -> StreamScores:
    """Every derived score of a square result matrix (row i in service after experience i on `sites[i]`).

    Raises ValueError when the matrix is not square in `sites`.
    """
    values = np.asarray(matrix, dtype=float)
    if values.shape != (len(sites), len(sites)):
        raise ValueError(f"result matrix of shape {values.shape} for {len(sites)} sites; give one row per experience")
    forgotten = forgetting_per_site(values)
    return StreamScores(
        acc=average_accuracy(values),
        bwt=backward_transfer(values),
        fwt=forward_transfer(values, np.asarray(chance, dtype=float)),
        forgetting={site: float(value) for site, value in zip(sites, [*forgotten, 0.0], strict=True)},
        worst_site=float(values[-1].min()),
        worst_site_drop=float(max(forgotten, default=0.0)),
    )
