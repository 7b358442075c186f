"""A version's temperature: one number that its class scores are divided by, so that served probabilities are honest.

Knows scores and labels; knows nothing of where they come from. Dividing by a number above 0 never reorders classes.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from continual.learning.closed_form import softmax

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature: beyond them probabilities say nothing but 0 and 1, or nothing at all."""
HALVINGS = 60


def fit_temperature(
    scores: Float[np.ndarray, "image klass"],
    targets: Int[np.ndarray, "image"],
    cells: Sequence[Hashable],
    offered: Bool[np.ndarray, "image klass"] | None = None,
) -> float:
    """The temperature in [0.05, 20] of the smallest negative log-likelihood (Guo et al. 2017); 1 without an image.

    Every cell weighs the same, however many images it has. Targets are softened as by one more image of every class
    (Platt 1999): without that, a handful of faultless images would ask for certainty. Of the classes that are no
    possible answer, where `offered` says so, there is none.
    """
    count = len(scores)
    if not count:
        return 1.0
    exact = scores.astype(np.float64)
    possible = np.ones(scores.shape, dtype=bool) if offered is None else offered
    classes = possible.sum(axis=1, keepdims=True)
    softness = classes / (count + classes)
    wanted = possible * softness / classes
    wanted[np.arange(count), targets] += 1.0 - softness[:, 0]
    sizes = Counter(cells)
    weights = np.array([1.0 / (len(sizes) * sizes[cell]) for cell in cells])
    # The loss is convex in the inverse temperature: its slope is found zero by halving.
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        slope = weights @ ((softmax(middle * exact) - wanted) * exact).sum(axis=1)
        low, high = (middle, high) if slope < 0.0 else (low, middle)
    return float(np.clip(2.0 / (low + high), COLDEST, HOTTEST))
