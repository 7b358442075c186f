"""Did only the case mix change? The current mix is estimated without labels, and the reference is drawn to that mix.

Black-box shift estimation (Lipton et al. 2018) with soft confusions: where images of a class still look as they did,
the mean output of the current window is the mixture, by the current mix, of the classes' mean outputs on the reference.
Knows nothing of verdicts.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import nnls

from monitoring.windows import Window, select

SUM_WEIGHT = 10.0
"""How firmly the estimated shares are asked to add up to 1, beside one equation for each class."""
FEWEST_OF_A_CLASS = 5
"""A class with fewer labelled reference samples has no mean output to speak of; it is taken to be absent."""


@dataclass(frozen=True, slots=True, eq=False)
class MatchedReference:
    """The reference drawn to the estimated mix, and as many samples of it drawn as it is.

    What the first loses in power against the whole reference, the second loses too.
    """

    mix: Float[np.ndarray, "klass"]
    known_mix: Float[np.ndarray, "klass"]
    matched: Window
    unmatched: Window


def match_reference(reference: Window, current: Window, seed: int) -> MatchedReference | None:
    """The reference at the current window's estimated mix; None where labels or outputs do not allow an estimate.

    Samples are drawn without replacement, as many as the scarcest class allows: a sample drawn twice would look like a
    site whose images repeat. The estimate is right where only the mix changed; elsewhere the drawn reference still
    differs from the current window, which is the test that is made with it.
    """
    if reference.labels is None or reference.outputs is None or current.outputs is None:
        return None
    labelled = select(reference, reference.labelled) if reference.labelled.any() else None
    if labelled is None or labelled.labels is None or labelled.outputs is None:
        return None
    counts = np.bincount(labelled.labels, minlength=labelled.outputs.shape[1])
    mix = estimate_mix(labelled.outputs, labelled.labels, current.outputs)
    if mix is None:
        return None
    rows = _drawn(labelled.labels, counts, mix, seed)
    some = np.random.default_rng(seed).permutation(len(labelled.labels))[: len(rows)]
    return MatchedReference(mix, counts / counts.sum(), _rows(labelled, rows), _rows(labelled, some))


def estimate_mix(
    outputs: Float[np.ndarray, "sample klass"],
    labels: Int[np.ndarray, "sample"],
    current: Float[np.ndarray, "other klass"],
) -> Float[np.ndarray, "klass"] | None:
    """Share of each class in the current window, in [0, 1] with sum 1; None with fewer than two classes to mix."""
    counts = np.bincount(labels, minlength=outputs.shape[1])
    able = np.flatnonzero(counts >= FEWEST_OF_A_CLASS)
    if len(able) < 2:
        return None
    means = np.stack([outputs[labels == klass].mean(axis=0) for klass in able], axis=1)
    system = np.vstack([means, np.full((1, len(able)), SUM_WEIGHT)])
    shares, _ = nnls(system, np.append(current.mean(axis=0), SUM_WEIGHT))
    mix = np.zeros(outputs.shape[1])
    mix[able] = shares / shares.sum()
    return mix


def _drawn(
    labels: Int[np.ndarray, "sample"], counts: Int[np.ndarray, "klass"], mix: Float[np.ndarray, "klass"], seed: int
) -> Int[np.ndarray, "drawn"]:
    """Rows with the shares of `mix`, as many as there can be."""
    # A share below half a sample in the whole reference asks for none of it.
    wanted = mix >= 0.5 / len(labels)
    size = np.floor((counts[wanted] / mix[wanted]).min())
    take = np.minimum(np.rint(size * mix), counts).astype(int)
    generator = np.random.default_rng(seed)
    return np.sort(
        np.concatenate(
            [generator.permutation(np.flatnonzero(labels == klass))[:count] for klass, count in enumerate(take)]
        )
    )


def _rows(window: Window, rows: Int[np.ndarray, "drawn"]) -> Window:
    mask = np.zeros(len(window.subjects), dtype=bool)
    mask[rows] = True
    return select(window, mask)
