"""Which images to look at first, by distance of embeddings to the reference; knows digests, no pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from monitoring.windows import Window, draw_subjects

EXAMPLES = 4
"""Images of each kind at most."""
NEIGHBOURS = 5
"""An image's distance to the reference is its mean distance to this many nearest reference images."""
MOST_SUBJECTS = 500
AT_ONCE = 1000
"""Current images whose distances are held in memory together."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Digests: reference images drawn by lot, and the current ones nearest to the reference and farthest from it."""

    usual: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    farthest: tuple[str, ...] = ()


def examples_of(reference: Window, current: Window, seed: int) -> Examples:
    """One image per subject, none both near and far; none at all where a window's images have no digests."""
    if not reference.samples or not current.samples:
        return Examples()
    known = draw_subjects(reference, MOST_SUBJECTS, seed)
    order = _one_per_subject(current, distances_to(known, current).argsort(kind="stable"))
    each = min(EXAMPLES, (len(order) + 1) // 2)
    drawn = _one_per_subject(known, np.random.default_rng(seed).permutation(len(known.subjects)))
    return Examples(
        usual=tuple(known.samples[row] for row in drawn[:EXAMPLES]),
        nearest=tuple(current.samples[row] for row in order[: min(each, len(order) - each)]),
        farthest=tuple(current.samples[row] for row in order[::-1][:each]),
    )


def distances_to(reference: Window, current: Window) -> Float[np.ndarray, "sample"]:
    """Mean Euclidean distance of each current image to its nearest reference images, in the embedding."""
    count = min(NEIGHBOURS, len(reference.subjects))
    distances = np.empty(len(current.subjects))
    for start in range(0, len(distances), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        among = cdist(current.embeddings[part], reference.embeddings)
        distances[part] = np.partition(among, count - 1, axis=1)[:, :count].mean(axis=1)
    return distances


def _one_per_subject(window: Window, order: Int[np.ndarray, "sample"]) -> list[int]:
    """Rows in the order given, only the first of each subject."""
    first: dict[str, int] = {}
    for row in order:
        first.setdefault(window.subjects[row], int(row))
    return list(first.values())
