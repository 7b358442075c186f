"""A version's temperature: one number that its class scores are divided by, so that served probabilities are honest.

Knows scores and labels; knows nothing of where they come from. Dividing by a number above 0 never reorders classes.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

from continual.domain.samples import Sample
from continual.learning.activations import ActivationCache
from continual.learning.closed_form import softmax
from continual.learning.closed_form_network import ClosedFormNetwork
from continual.learning.evaluation import class_scores
from continual.learning.network import AdaptedNetwork

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature: beyond them probabilities say nothing but 0 and 1, or nothing at all."""
HALVINGS = 60


def fit_temperature(
    scores: Float[np.ndarray, "image klass"], targets: Int[np.ndarray, "image"], cells: Sequence[Hashable]
) -> float:
    """The temperature in [0.05, 20] of the smallest negative log-likelihood (Guo et al. 2017); 1 without an image.

    Every cell weighs the same, however many images it has. Targets are softened as by one more image of every class
    (Platt 1999): without that, a handful of faultless images would ask for certainty.
    """
    count, classes = scores.shape
    if not count:
        return 1.0
    exact = scores.astype(np.float64)
    softness = classes / (count + classes)
    wanted = np.full(exact.shape, softness / classes)
    wanted[np.arange(count), targets] += 1.0 - softness
    sizes = Counter(cells)
    weights = np.array([1.0 / (len(sizes) * sizes[cell]) for cell in cells])
    # The loss is convex in the inverse temperature: its slope is found zero by halving.
    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        slope = weights @ ((softmax(middle * exact) - wanted) * exact).sum(axis=1)
        low, high = (middle, high) if slope < 0.0 else (low, middle)
    return float(np.clip(2.0 / (low + high), COLDEST, HOTTEST))


def calibrate(
    network: AdaptedNetwork | ClosedFormNetwork,
    cache: ActivationCache,
    samples: Sequence[Sample],
    progress: Callable[[int], None],
) -> float:
    """Fit the network's temperature on labelled samples it was not trained on, set it and return it.

    Cells are (site, class). Samples without a label, or with one that the network does not know, are left out.
    """
    known = [sample for sample in samples if sample.label in network.classes]
    scores = class_scores(network, cache, [sample.digest for sample in known], progress)
    targets = np.array([network.classes.index(str(sample.label)) for sample in known], dtype=np.int64)
    network.temperature = fit_temperature(scores, targets, [(sample.site, sample.label) for sample in known])
    return network.temperature
