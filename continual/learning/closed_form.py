"""Training-free classifiers on frozen features: sums are kept, never images, and sites may come in any order.

What they know after the last site is the same whatever the order, so they forget nothing; the features never adapt.
Knows arrays; knows nothing of networks, files or sites.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

PROJECTED = 2000
"""Random features of the projection."""
RIDGES = tuple(10.0**power for power in range(-1, 6))
"""Ridge strengths tried on validation data."""
COSINE_SCALE = 10.0
"""Cosine similarities lie within 1 of each other; scaled by this before a softmax."""

Features = Float[np.ndarray, "image feature"]
Targets = Int[np.ndarray, "image"]
Scores = Float[np.ndarray, "image klass"]


class Readout(Protocol):
    """What a closed form says at one moment: enough to answer with, not to learn on."""

    def scores(self, features: Features) -> Scores:
        """Class scores, higher is likelier."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that the scores depend on, by name."""

    def described(self) -> dict[str, Any]:
        """What a person should know of it: plain JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class CosineReadout:
    """Unit means of the classes; `heard` is false for a class without an image, which scores lowest."""

    means: Float[np.ndarray, "klass feature"]
    heard: Bool[np.ndarray, "klass"]

    def scores(self, features: Features) -> Scores:
        """Scaled cosine to each class's mean."""
        similar: Scores = COSINE_SCALE * (_unit(features) @ self.means.T)
        similar[:, ~self.heard] = -COSINE_SCALE
        return similar

    def arrays(self) -> dict[str, np.ndarray]:
        """Means and which of them are any."""
        return {"means": self.means, "heard": self.heard}

    def described(self) -> dict[str, Any]:
        """Nothing beyond the method's name."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "CosineReadout":
        """The readout that `arrays` wrote; KeyError where one is missing."""
        return cls(arrays["means"], arrays["heard"].astype(bool))


@dataclass(frozen=True, slots=True, eq=False)
class RidgeReadout:
    """A random ReLU projection and the ridge regression's weights on it; `ridge` is the strength they were solved at.

    The projection's values are 16-bit numbers, so that they are stored whole in half the room.
    """

    projection: Float[np.ndarray, "feature projected"]
    weights: Float[np.ndarray, "projected klass"]
    ridge: float

    def lift(self, features: Features) -> Float[np.ndarray, "image projected"]:
        """Random ReLU features."""
        return _lift(features, self.projection)

    def scores(self, features: Features) -> Scores:
        """Regressed one-hot targets, scaled like the cosines."""
        scores: Scores = COSINE_SCALE * (self.lift(features) @ self.weights)
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Projection (16-bit), weights and ridge strength."""
        return {
            "projection": self.projection.astype(np.float16),
            "weights": self.weights,
            "ridge": np.array([self.ridge]),
        }

    def described(self) -> dict[str, Any]:
        """Number of random features and ridge strength."""
        return {"projected": int(self.projection.shape[1]), "ridge": self.ridge}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "RidgeReadout":
        """The readout that `arrays` wrote; KeyError where one is missing."""
        return cls(arrays["projection"].astype(np.float64), arrays["weights"], float(arrays["ridge"][0]))


class ClosedForm(Protocol):
    """A classifier that learns by adding to sums."""

    def learn(self, features: Features, targets: Targets) -> None:
        """Add images; `targets` number the classes from 0."""

    def settle(self, features: Features, targets: Targets) -> None:
        """Choose what is left to choose on validation images of what was learnt; may be called after every site."""

    def scores(self, features: Features) -> Scores:
        """Class scores, higher is likelier."""

    def grow(self, classes: int) -> None:
        """Make room for `classes` classes in all; those that were there keep their numbers and their sums."""

    def readout(self) -> Readout:
        """What it says as it stands."""

    def sums(self) -> dict[str, np.ndarray]:
        """Everything that learning goes on from, beside the readout, by name."""

    def resume(self, sums: Mapping[str, np.ndarray], readout: Readout) -> None:
        """Stand where another of the same kind stood that wrote them; KeyError where one is missing."""

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
        return self.readout().scores(features)

    def grow(self, classes: int) -> None:
        """Empty sums for the classes added."""
        self._sums = _padded(self._sums, classes)
        self._counts = _padded(self._counts, classes)

    def readout(self) -> CosineReadout:
        """The means."""
        return CosineReadout(_unit(self._sums), self._counts > 0)

    def sums(self) -> dict[str, np.ndarray]:
        """Sums of unit features and numbers of images."""
        return {"sums": self._sums, "counts": self._counts}

    def resume(self, sums: Mapping[str, np.ndarray], readout: Readout) -> None:  # noqa: ARG002 (one signature)
        """The means follow from the sums."""
        self._sums, self._counts = sums["sums"].copy(), sums["counts"].copy()

    def stored_bytes(self) -> int:
        """Sums and counts."""
        return int(self._sums.nbytes + self._counts.nbytes)


class RandomProjection:
    """Ridge regression to one-hot targets on random ReLU features (McDonnell et al. 2023, RanPAC)."""

    def __init__(self, width: int, classes: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        drawn = random.normal(size=(width, PROJECTED)) / np.sqrt(width)
        # Rounded before anything is learnt on it, so that its 16-bit file holds the very same projection.
        self._projection = drawn.astype(np.float16).astype(np.float64)
        self._gram = np.zeros((PROJECTED, PROJECTED))
        self._cross = np.zeros((PROJECTED, classes))
        self._ridge = RIDGES[len(RIDGES) // 2]

    def learn(self, features: Features, targets: Targets) -> None:
        """Add to the Gram matrix and to the cross products with the one-hot targets."""
        lifted = _lift(features, self._projection)
        self._gram += lifted.T @ lifted
        self._cross += lifted.T @ np.eye(self._cross.shape[1])[targets]

    def settle(self, features: Features, targets: Targets) -> None:
        """The ridge strength with the best mean recall per class on validation images; ties: the stronger."""
        lifted = _lift(features, self._projection)

        def recall(ridge: float) -> float:
            hits = (lifted @ self._weights(ridge)).argmax(axis=1) == targets
            return float(np.mean([hits[targets == target].mean() for target in np.unique(targets)]))

        self._ridge = max(reversed(RIDGES), key=recall)

    def scores(self, features: Features) -> Scores:
        """Regressed one-hot targets, scaled like the cosines."""
        return self.readout().scores(features)

    def grow(self, classes: int) -> None:
        """No cross product yet for the classes added; the Gram matrix does not know classes."""
        self._cross = _padded(self._cross.T, classes).T.copy()

    def readout(self) -> RidgeReadout:
        """Projection and the weights solved for the present sums and ridge strength."""
        return RidgeReadout(self._projection, self._weights(self._ridge), self._ridge)

    def sums(self) -> dict[str, np.ndarray]:
        """The Gram matrix's upper triangle, row by row, and the cross products."""
        return {"gram": self._gram[np.triu_indices(len(self._gram))], "cross": self._cross}

    def resume(self, sums: Mapping[str, np.ndarray], readout: Readout) -> None:
        """Sums, and from the readout the projection that they were made with and the ridge strength."""
        arrays = readout.arrays()
        self._projection = arrays["projection"].astype(np.float64)
        self._ridge = float(arrays["ridge"][0])
        self._cross = sums["cross"].copy()
        size = self._projection.shape[1]
        self._gram = np.zeros((size, size))
        self._gram[np.triu_indices(size)] = sums["gram"]
        self._gram += np.triu(self._gram, 1).T

    def stored_bytes(self) -> int:
        """Half of the symmetric Gram matrix, cross products and 16-bit projection."""
        size = len(self._gram)
        return int(size * (size + 1) // 2 * self._gram.itemsize + self._cross.nbytes + 2 * self._projection.size)

    def _weights(self, ridge: float) -> Float[np.ndarray, "projected klass"]:
        return np.linalg.solve(self._gram + ridge * np.eye(len(self._gram)), self._cross)


CLOSED_FORMS: Mapping[str, Callable[[int, int, int], ClosedForm]] = {
    "nearest_mean": NearestMean,
    "random_projection": RandomProjection,
}
"""By name: a maker from feature width, number of classes and seed."""

READOUTS: Mapping[str, Callable[[Mapping[str, np.ndarray]], Readout]] = {
    "nearest_mean": CosineReadout.from_arrays,
    "random_projection": RidgeReadout.from_arrays,
}
"""By name: a maker from the arrays of a readout, for every closed form."""


def targets_of(labels: Sequence[str], classes: Sequence[str]) -> Targets:
    """Number of each label among the classes."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[label] for label in labels], dtype=int)


def softmax(scores: Scores) -> Scores:
    """Rows of scores as probabilities that sum to 1."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Scores = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _lift(
    features: Features, projection: Float[np.ndarray, "feature projected"]
) -> Float[np.ndarray, "image projected"]:
    lifted: Float[np.ndarray, "image projected"] = np.maximum(features @ projection, 0.0)
    return lifted


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` rows in all, those that were missing zero."""
    grown = np.zeros((count, *rows.shape[1:]))
    grown[: len(rows)] = rows
    return grown


def _unit(features: Features) -> Features:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Features = features / np.where(length > 0, length, 1.0)
    return unit
