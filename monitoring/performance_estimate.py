"""How well does the champion do where nobody has labelled anything? Knows nothing of verdicts.

Confidence-based estimation: each image counts as a success with the probability that the champion itself gives its
answer, which is right on average where only the images' frequencies changed and the champion is calibrated (Guillory et
al. 2021 and others). Its belief is tempered on the labelled reference and moved to the case mix that the window's
outputs ask for (Saerens et al. 2002): else the doubt about a frequent class, though small, drowns the recall of a rare
one. What is still off on the reference, its classes weighed by that mix, is taken off. Where the images lie outside
anything that the reference shows, nothing is known about calibration there, and the answer is that it cannot be told.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import softmax

from monitoring.label_shift import FEWEST_OF_A_CLASS, estimate_mix
from monitoring.windows import Window, select, subject_codes

DRAWS = 400
"""Bootstrap draws of whole subjects for the interval."""
INTERVAL = (0.025, 0.975)
OUTSIDE_LIMIT = 0.2
"""With a larger share of images outside the reference's range there is no estimate."""
USUAL = 0.99
"""An image is outside if its nearest reference image is farther than this share of theirs are from one another."""
FEWEST_EXPECTED = 1.0
"""A class of which less than this many images are expected has no recall to speak of."""
FEWEST_LABELLED = 20
MOST_SAMPLES = 2000
TEMPERATURES = (-3.0, 3.0)
"""Logarithms of the lowest and highest temperature that is tried."""
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """Balanced accuracy in [0, 1]; labels, once they come, would show a value between `low` and `high` in 95 %."""

    value: float
    low: float
    high: float


def estimate_performance(reference: Window, current: Window, seed: int) -> Estimate | None:
    """The champion's balanced accuracy on the current window; None where it cannot be told.

    That is without outputs, with fewer than 20 labelled reference samples, or where more than a fifth of the images lie
    outside the reference's range. A changed meaning of the labels (concept shift) cannot be seen without labels.
    """
    if reference.labels is None or reference.outputs is None or current.outputs is None:
        return None
    if reference.labelled.sum() < FEWEST_LABELLED or outside_share(reference, current, seed) > OUTSIDE_LIMIT:
        return None
    known = select(reference, reference.labelled)
    outputs, labels = reference.outputs[reference.labelled], reference.labels[reference.labelled]
    temperature = _temperature(outputs, labels)
    factors = _mix_factors(outputs, labels, current.outputs)
    weights = factors[labels][:, None]
    new = _counts(current, current.outputs, _moved(_at(temperature, current.outputs), factors))
    held = _counts(known, outputs, weights * _moved(_at(temperature, outputs), factors))
    true = _counts(known, outputs, weights * np.eye(outputs.shape[1])[labels])
    generator = np.random.default_rng(seed)
    drawn_new, drawn_known = (_resampled(generator, len(each.total)) for each in (new, true))
    drawn = new.realised(drawn_new, generator) + true.score(drawn_known) - held.score(drawn_known)
    whole = [each.score(np.ones((1, len(each.total))))[0] for each in (new, true, held)]
    low, high = np.clip(np.quantile(drawn, INTERVAL), 0, 1)
    return Estimate(float(np.clip(whole[0] + whole[1] - whole[2], 0, 1)), float(low), float(high))


def outside_share(reference: Window, current: Window, seed: int) -> float:
    """Share of the current images, in [0, 1], farther from the reference than its images are from each other."""
    known, new = (_some(window.embeddings, seed) for window in (reference, current))
    among = cdist(known, known)
    np.fill_diagonal(among, np.inf)
    limit = float(np.quantile(among.min(axis=1), USUAL))
    return float((cdist(new, known).min(axis=1) > limit).mean())


def _some(rows: Float[np.ndarray, "sample feature"], seed: int) -> Float[np.ndarray, "some feature"]:
    if len(rows) <= MOST_SAMPLES:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), MOST_SAMPLES, replace=False)]


def _at(temperature: float, outputs: Float[np.ndarray, "sample klass"]) -> Float[np.ndarray, "sample klass"]:
    tempered: Float[np.ndarray, "sample klass"] = softmax(np.log(np.clip(outputs, TINY, None)) / temperature, axis=1)
    return tempered


def _mix_factors(
    outputs: Float[np.ndarray, "sample klass"],
    labels: Int[np.ndarray, "sample"],
    current: Float[np.ndarray, "other klass"],
) -> Float[np.ndarray, "klass"]:
    """How many times as frequent each class is now; 1 for one too rare on the reference to tell."""
    counts = np.bincount(labels, minlength=outputs.shape[1])
    mix = estimate_mix(outputs, labels, current)
    able = counts >= FEWEST_OF_A_CLASS
    unchanged = np.ones(len(counts))
    return unchanged if mix is None else np.divide(mix * len(labels), counts, out=unchanged, where=able)


def _moved(
    belief: Float[np.ndarray, "sample klass"], factors: Float[np.ndarray, "klass"]
) -> Float[np.ndarray, "sample klass"]:
    """Belief that was right at the reference's mix, at the current one."""
    moved: Float[np.ndarray, "sample klass"] = np.maximum(belief * factors, TINY)
    moved /= moved.sum(axis=1, keepdims=True)
    return moved


def _temperature(outputs: Float[np.ndarray, "sample klass"], labels: Int[np.ndarray, "sample"]) -> float:
    """The temperature at which the champion's belief fits the reference's labels best (Guo et al. 2017)."""

    def surprise(log_temperature: float) -> float:
        belief = _at(float(np.exp(log_temperature)), outputs)
        return -float(np.log(np.clip(belief[np.arange(len(labels)), labels], TINY, None)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=TEMPERATURES, method="bounded").x))


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Images of each subject in each class, expected or true, and how many of them the champion names right."""

    total: Float[np.ndarray, "subject klass"]
    right: Float[np.ndarray, "subject klass"]

    def score(self, weights: Float[np.ndarray, "draw subject"]) -> Float[np.ndarray, "draw"]:
        """Mean recall over the classes of which a draw has an image."""
        recall, there = self._recall(weights)
        return _mean(recall, there)

    def realised(
        self, weights: Float[np.ndarray, "draw subject"], generator: np.random.Generator
    ) -> Float[np.ndarray, "draw"]:
        """The same, with the chance that turns a probability of being right into being right or wrong."""
        recall, there = self._recall(weights)
        images = np.maximum(np.rint(weights @ self.total), 1).astype(int)
        return _mean(generator.binomial(images, np.clip(recall, 0, 1)) / images, there)

    def _recall(
        self, weights: Float[np.ndarray, "draw subject"]
    ) -> tuple[Float[np.ndarray, "draw klass"], Bool[np.ndarray, "draw klass"]]:
        total = weights @ self.total
        there = total >= FEWEST_EXPECTED
        return np.divide(weights @ self.right, total, out=np.zeros_like(total), where=there), there


def _mean(recall: Float[np.ndarray, "draw klass"], there: Bool[np.ndarray, "draw klass"]) -> Float[np.ndarray, "draw"]:
    scores: Float[np.ndarray, "draw"] = (recall * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return scores


def _counts(
    window: Window, outputs: Float[np.ndarray, "sample klass"], belief: Float[np.ndarray, "sample klass"]
) -> _Counts:
    """What the champion answers, counted by what is believed of each image, or known."""
    answered = np.eye(outputs.shape[1])[outputs.argmax(axis=1)]
    codes, subjects = subject_codes(window)
    total, right = (np.zeros((subjects, outputs.shape[1])) for _ in range(2))
    np.add.at(total, codes, belief)
    np.add.at(right, codes, belief * answered)
    return _Counts(total, right)


def _resampled(generator: np.random.Generator, subjects: int) -> Float[np.ndarray, "draw subject"]:
    return generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=DRAWS).astype(float)
