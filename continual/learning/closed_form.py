"""Training-free classifiers on frozen features: sums are kept, never images, and sites may come in any order.

What they know after the last site is the same whatever the order, so they forget nothing; the features never adapt.
Knows arrays; knows nothing of networks, files or sites.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

PROJECTED = 2000
"""Random features of the projection."""
RIDGES = tuple(10.0**power for power in range(-1, 6))
"""Ridge strengths tried on validation data."""
COSINE_SCALE = 10.0
"""Cosine similarities lie within 1 of each other; scaled by this before a softmax."""

Features = Float[np.ndarray, "image feature"]
Targets = Int[np.ndarray, "image"]
Scores = Float[np.ndarray, "image klass"]


class ClosedForm(Protocol):
    """A classifier that learns by adding to sums."""

    def learn(self, features: Features, targets: Targets) -> None:
        """Add images; `targets` number the classes from 0."""

    def settle(self, features: Features, targets: Targets) -> None:
        """Choose what is left to choose on validation images of what was learnt; may be called after every site."""

    def scores(self, features: Features) -> Scores:
        """Class scores, higher is likelier."""

    def stored_bytes(self) -> int:
        """Size of what is kept between sites, in bytes."""


class NearestMean:
    """Each class is its mean feature, the nearest by cosine wins (Mensink et al. 2013)."""

    def __init__(self, width: int, classes: int, seed: int) -> None:  # noqa: ARG002 (one signature for the dict)
        self._sums = np.zeros((classes, width))
        self._counts = np.zeros(classes)

    def learn(self, features: Features, targets: Targets) -> None:
        """Add to each class's sum of unit features."""
        np.add.at(self._sums, targets, _unit(features))
        np.add.at(self._counts, targets, 1.0)

    def settle(self, features: Features, targets: Targets) -> None:
        """Nothing to choose."""

    def scores(self, features: Features) -> Scores:
        """Scaled cosine to each class's mean; a class without an image scores lowest."""
        similar: Scores = COSINE_SCALE * (_unit(features) @ _unit(self._sums).T)
        similar[:, self._counts == 0] = -COSINE_SCALE
        return similar

    def stored_bytes(self) -> int:
        """Sums and counts."""
        return int(self._sums.nbytes + self._counts.nbytes)


class RandomProjection:
    """Ridge regression to one-hot targets on random ReLU features (McDonnell et al. 2023, RanPAC)."""

    def __init__(self, width: int, classes: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._projection = random.normal(size=(width, PROJECTED)) / np.sqrt(width)
        self._gram = np.zeros((PROJECTED, PROJECTED))
        self._cross = np.zeros((PROJECTED, classes))
        self._ridge = RIDGES[len(RIDGES) // 2]

    def learn(self, features: Features, targets: Targets) -> None:
        """Add to the Gram matrix and to the cross products with the one-hot targets."""
        lifted = self._lift(features)
        self._gram += lifted.T @ lifted
        self._cross += lifted.T @ np.eye(self._cross.shape[1])[targets]

    def settle(self, features: Features, targets: Targets) -> None:
        """The ridge strength with the best mean recall per class on validation images; ties: the stronger."""
        lifted = self._lift(features)

        def recall(ridge: float) -> float:
            hits = (lifted @ self._weights(ridge)).argmax(axis=1) == targets
            return float(np.mean([hits[targets == target].mean() for target in np.unique(targets)]))

        self._ridge = max(reversed(RIDGES), key=recall)

    def scores(self, features: Features) -> Scores:
        """Regressed one-hot targets, scaled like the cosines."""
        scores: Scores = COSINE_SCALE * (self._lift(features) @ self._weights(self._ridge))
        return scores

    def stored_bytes(self) -> int:
        """Gram matrix and cross products; the projection is drawn again from its seed."""
        return int(self._gram.nbytes + self._cross.nbytes)

    def _lift(self, features: Features) -> Float[np.ndarray, "image projected"]:
        lifted: Float[np.ndarray, "image projected"] = np.maximum(features @ self._projection, 0.0)
        return lifted

    def _weights(self, ridge: float) -> Float[np.ndarray, "projected klass"]:
        return np.linalg.solve(self._gram + ridge * np.eye(PROJECTED), self._cross)


CLOSED_FORMS: Mapping[str, Callable[[int, int, int], ClosedForm]] = {
    "nearest_mean": NearestMean,
    "random_projection": RandomProjection,
}
"""By name: a maker from feature width, number of classes and seed."""


def targets_of(labels: Sequence[str], classes: Sequence[str]) -> Targets:
    """Number of each label among the classes."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[label] for label in labels], dtype=int)


def softmax(scores: Scores) -> Scores:
    """Rows of scores as probabilities that sum to 1."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Scores = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _unit(features: Features) -> Features:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Features = features / np.where(length > 0, length, 1.0)
    return unit
