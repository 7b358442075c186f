"""Windows for tests: sklearn's digits as a hospital's images, and synthetic subjects with many images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from sklearn.datasets import load_digits

from continual.domain.change_plan import ChangePlan
from monitoring import Window

Array = np.ndarray
MakeWindow = Callable[..., Window]


@pytest.fixture
def make_window() -> MakeWindow:
    """Builds a window around embeddings; without subjects every sample is a subject of its own."""

    def make(
        embeddings: Array,
        site: str = "north",
        *,
        subjects: Sequence[str] | None = None,
        outputs: Array | None = None,
        tags: Sequence[Mapping[str, str | float]] | None = None,
        pixels: Sequence[Mapping[str, float]] | None = None,
    ) -> Window:
        count = len(embeddings)
        return Window(
            site=site,
            subjects=tuple(subjects or (f"{site}-{i}" for i in range(count))),
            embeddings=embeddings,
            outputs=outputs,
            tags=tuple(tags or ({},) * count),
            pixel_statistics=tuple(pixels or ({},) * count),
        )

    return make


@pytest.fixture(scope="session")
def digits() -> Array:
    """1,797 images of 64 intensities in [0, 1]."""
    return load_digits().data / 16.0


@pytest.fixture
def quick_plan() -> ChangePlan:
    """The default rules with fewer permutations."""
    return ChangePlan(permutations=199)


def probabilities(embeddings: Array) -> Array:
    """What some fixed three-class champion makes of embeddings: one linear layer and a softmax."""
    weights = np.random.default_rng(11).normal(size=(embeddings.shape[1], 3))
    logits = embeddings @ weights
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.fixture
def champion() -> Callable[[Array], Array]:
    return probabilities
