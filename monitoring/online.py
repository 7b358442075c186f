"""Image by image: an alarm soon after images begin to differ; knows nothing of looks, verdicts or flows.

Every property of an image (its place along the reference's main directions of embeddings, its pixel statistics) becomes
a normal score by its rank in the reference. For each property and each of a few shifts a CUSUM (Page 1954) adds up the
log-likelihood ratio of that shift against none; the largest sum of all is the evidence. The threshold is found by
playing patients in random order until the mean run to a false alarm is the one asked for. It is an estimate, no bound.
`monitoring.evidence` holds its level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

from continual.domain.errors import WindowError
from monitoring.windows import Window, select, subject_codes

DIRECTIONS = 20
"""Main directions of the reference's embeddings that are watched, fewer where there are fewer."""
SHIFTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
"""Shifts to bet on, in standard deviations of a normal score."""
WAY = 0.25
_RUNS = 200
_HORIZON = 4
_HALVINGS = 50
_FLAT = 1e-9

Scores = Float[np.ndarray, "image property"]
Sums = Float[np.ndarray, "*stream property shift"]


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """What is watched, and when it alarms: made by `watch`, never changed. `threshold` is in natural log units."""

    centre: Float[np.ndarray, "feature"]
    directions: Float[np.ndarray, "feature direction"]
    statistics: tuple[str, ...]
    known: Float[np.ndarray, "sample property"]
    """The reference's properties, each column sorted."""
    threshold: float

    def start(self) -> Sums:
        """The sums before the first image, and after an alarm was dealt with."""
        return np.zeros((self.known.shape[1], len(SHIFTS)))

    def scores(self, images: Window) -> Scores:
        """Each image's properties as normal scores, by their ranks in the reference."""
        return _normal_scores(_properties(self.centre, self.directions, self.statistics, images), self.known)

    def follow(self, sums: Sums, images: Window) -> tuple[Float[np.ndarray, "image"], Sums]:
        """The evidence after each image, in the order given, and the sums to go on from; above `threshold` it alarms.

        Raises WindowError when embeddings differ in width from the reference's, or a pixel statistic is missing.
        """
        scores = self.scores(images)
        evidence = np.empty(len(scores))
        for place, image in enumerate(scores):
            sums = _add(sums, image)
            evidence[place] = sums.max()
        return evidence, sums


def watch(reference: Window, mean_run_images: float, seed: int) -> Watch:
    """Watches for what differs from the reference, with a false alarm every `mean_run_images` images on average.

    The same seed gives the same threshold. Raises WindowError when the reference has fewer than two subjects.
    """
    codes, subjects = subject_codes(reference)
    if subjects < 2:
        raise WindowError(f"window of site {reference.site} holds {subjects} subject, a watch needs 2; wait for images")
    first = np.isin(codes, np.random.default_rng(seed).permutation(subjects)[: subjects // 2])
    # A reference of n patients lies off by a variance of 1/n, which shortens runs. Played against itself it lies off by
    # 0, one half against the other by 2/n + 2/n; to first order the threshold grows with that: a quarter of the way.
    halves = [select(reference, side) for side in (first, ~first)]
    alone = _fitted(reference)
    within = _threshold(alone.scores(reference), codes, mean_run_images, seed)
    across = [
        _threshold(_fitted(known).scores(played), subject_codes(played)[0], mean_run_images, seed)
        for known, played in (halves, halves[::-1])
    ]
    return replace(alone, threshold=within + WAY * (float(np.mean(across)) - within))


def _fitted(reference: Window) -> Watch:
    """A watch that never alarms."""
    centre = reference.embeddings.mean(axis=0)
    _, spread, directions = np.linalg.svd(reference.embeddings - centre, full_matrices=False)
    kept = spread[:DIRECTIONS] > _FLAT * max(float(np.abs(reference.embeddings).max()), 1.0)
    main = directions[: len(kept)][kept].T
    names = tuple(sorted(set.intersection(*(set(row) for row in reference.pixel_statistics))))
    known = np.sort(_properties(centre, main, names, reference), axis=0)
    return Watch(centre, main, names, known, float("inf"))


def _properties(
    centre: Float[np.ndarray, "feature"],
    directions: Float[np.ndarray, "feature direction"],
    statistics: Sequence[str],
    images: Window,
) -> Scores:
    width = images.embeddings.shape[1]
    if width != len(centre):
        raise WindowError(
            f"embeddings of {images.site} have {width} columns, the watch has {len(centre)}; use one backbone"
        )
    along = (images.embeddings - centre) @ directions
    return np.hstack([along, [_values(row, statistics, images.site) for row in images.pixel_statistics]])


def _values(row: Mapping[str, float], names: Sequence[str], site: str) -> list[float]:
    absent = [name for name in names if name not in row]
    if absent:
        raise WindowError(f"window of site {site}, pixel_statistics: {absent[0]} is missing; measure the image again")
    return [row[name] for name in names]


def _normal_scores(properties: Scores, known: Scores) -> Scores:
    """Ranks among the reference, ties in the middle, as standard normal quantiles; bounded by the reference's size."""
    scores = np.empty_like(properties, dtype=float)
    for place, column in enumerate(known.T):
        below, upto = (np.searchsorted(column, properties[:, place], side=side) for side in ("left", "right"))
        scores[:, place] = ndtri(((below + upto) / 2 + 0.5) / (len(column) + 1))
    return scores


def _add(sums: Sums, scores: Float[np.ndarray, "*stream property"]) -> Sums:
    shifts = np.asarray(SHIFTS)
    added: Sums = np.maximum(sums + scores[..., None] * shifts - shifts**2 / 2, 0.0)
    return added


def _threshold(scores: Scores, codes: Int[np.ndarray, "image"], mean_run_images: float, seed: int) -> float:
    """The evidence that random runs of the reference's patients first exceed after `mean_run_images` on average."""
    length = round(_HORIZON * mean_run_images)
    order = _random_streams(codes, length, seed)
    sums = np.zeros((_RUNS, scores.shape[1], len(SHIFTS)))
    highest = np.zeros((_RUNS, length))
    for image in range(length):
        sums = _add(sums, scores[order[:, image]])
        highest[:, image] = np.maximum(sums.max(axis=(1, 2)), highest[:, image - 1])
    low, high = 0.0, float(highest.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _mean_run(highest, middle) < mean_run_images:
            low = middle
        else:
            high = middle
    return high


def _mean_run(highest: Float[np.ndarray, "stream image"], threshold: float) -> float:
    """Images over alarms: what the mean is where runs end like those of a geometric clock, the longest cut off."""
    runs = (highest <= threshold).sum(axis=1)
    ended = int((runs < highest.shape[1]).sum())
    return float(np.minimum(runs + 1, highest.shape[1]).sum()) / ended if ended else float("inf")


def _random_streams(codes: Int[np.ndarray, "image"], length: int, seed: int) -> Int[np.ndarray, "stream image"]:
    """Patients drawn with replacement, each with all images in a row: those of one patient move together."""
    generator = np.random.default_rng(seed)
    images = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    streams = np.empty((_RUNS, length), dtype=int)
    for stream in streams:
        drawn = generator.integers(len(images), size=length)
        stream[:] = np.concatenate([images[subject] for subject in drawn])[:length]
    return streams
