"""Mean kernel values between subjects, exact or by random features; knows nothing of tests or windows.

A mixture of Gaussian kernels around the median heuristic. Each subject is ONE point: the mean of its images' kernel
embeddings. A subject's similarity to itself depends on how many images it has, and is left out of every sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int

from monitoring.detectors.permuted import ROUNDING, Groups

EXACT_SAMPLES = 2000
"""Above this many pooled samples the kernel is approximated by random Fourier features (Rahimi & Recht 2007)."""
BANDWIDTH_FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5)
"""Kernel widths as multiples of the median squared distance, each half of the one before."""
FREQUENCIES = 512
_MEDIAN_SAMPLES = 1000
_GROUP_CELLS = 2_000_000
_FEATURE_ROWS = 512

Samples = Float[np.ndarray, "sample feature"]
Pairs = Float[np.ndarray, "subject subject"]
Points = Float32[np.ndarray, "subject point"]
PerGroup = Float[np.ndarray, "group"]


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """Samples and the number, from 0, of each one's subject."""

    samples: Samples
    codes: Int[np.ndarray, "sample"]
    subjects: int


class PairSums(NamedTuple):
    """Kernel values between different subjects, summed for each of some groups."""

    inside: PerGroup
    """Over ordered pairs of members."""
    with_all: PerGroup
    """Over pairs of a member and any other subject."""
    total: float
    """Over ordered pairs of all subjects."""


class Similarity(Protocol):
    """Mean kernel values between different subjects."""

    def sums(self, groups: Groups) -> PairSums:
        """Summed over groups of subjects."""


class GramMatrix:
    """Every pair's mean kernel value."""

    def __init__(self, values: Pairs) -> None:
        np.fill_diagonal(values, 0.0)
        self._values = values

    def sums(self, groups: Groups) -> PairSums:
        """One matrix product for as many groups as fit into a bounded table."""
        of_each = self._values.sum(axis=1)
        inside, with_all = np.empty(len(groups)), np.empty(len(groups))
        most = max(1, _GROUP_CELLS // len(of_each))
        for start in range(0, len(groups), most):
            part = slice(start, start + most)
            rows = groups[part].astype(float)
            inside[part] = np.einsum("ij,ij->i", rows @ self._values, rows)
            with_all[part] = rows @ of_each
        return PairSums(inside, with_all, float(of_each.sum()))


class RandomFeatures:
    """A point per subject whose inner products stand for kernel values: neither pairs nor points are ever all there.

    Samples and points are centred, which changes no distance and no mean discrepancy, and leaves sums small enough for
    32 bits. The centre of the points is that of the rows that `scale` comes from.
    """

    def __init__(self, clouds: Sequence[Cloud], seed: int) -> None:
        drawn = _some_rows([cloud.samples for cloud in clouds], seed)
        self._clouds, self._middle = clouds, drawn.mean(axis=0)
        self._frequencies = _frequencies(drawn.shape[1], _median_positive(_squared_distances(drawn), drawn), seed)
        self._centre = self._points(drawn).mean(axis=0)

    def sums(self, groups: Groups) -> PairSums:
        """One pass over the samples, whatever the number of groups; subjects in order of their clouds."""
        sums, own = np.zeros((len(groups), 2 * FREQUENCIES)), np.zeros(len(groups))
        everyone, alone = np.zeros(2 * FREQUENCIES), 0.0
        for first, points in self._blocks():
            members = groups[:, first : first + len(points)]
            norms = np.einsum("ij,ij->i", points, points).astype(float)
            sums += members.astype(np.float32) @ points
            own += members @ norms
            everyone += points.sum(axis=0, dtype=float)
            alone += float(norms.sum())
        inside: PerGroup = np.einsum("ij,ij->i", sums, sums) - own
        return PairSums(inside, sums @ everyone - own, float(everyone @ everyone) - alone)

    def _blocks(self) -> Iterator[tuple[int, Points]]:
        """The first subject's number and the points of it and the next ones, in order."""
        before = 0
        for cloud in self._clouds:
            order, counts = np.argsort(cloud.codes, kind="stable"), np.bincount(cloud.codes, minlength=cloud.subjects)
            ends = np.cumsum(counts)
            first = 0
            while first < cloud.subjects:
                start = int(ends[first] - counts[first])
                last = max(first + 1, int(np.searchsorted(ends, start + _FEATURE_ROWS, side="right")))
                points = self._points(cloud.samples[order[start : ends[last - 1]]])
                if len(points) > last - first:
                    points = np.add.reduceat(points, ends[first:last] - counts[first:last] - start, axis=0)
                    points /= counts[first:last, None].astype(np.float32)
                yield before + first, points - self._centre
                first = last
            before += cloud.subjects

    def _points(self, samples: Samples) -> Points:
        angles = (samples - self._middle).astype(np.float32) @ self._frequencies
        points = np.empty((len(samples), 2 * FREQUENCIES), dtype=np.float32)
        np.cos(angles, out=points[:, :FREQUENCIES])
        np.sin(angles, out=points[:, FREQUENCIES:])
        points /= np.float32(np.sqrt(FREQUENCIES))
        return points


def similarity(clouds: Sequence[Cloud], seed: int) -> Similarity:
    """Between all subjects of some clouds, those of the first cloud first; exact up to `EXACT_SAMPLES` samples."""
    if sum(len(cloud.samples) for cloud in clouds) > EXACT_SAMPLES:
        return RandomFeatures(clouds, seed)
    before = np.cumsum([0, *(cloud.subjects for cloud in clouds)])
    codes = np.concatenate([cloud.codes + first for cloud, first in zip(clouds, before, strict=False)])
    samples = np.vstack([cloud.samples for cloud in clouds]).astype(float, copy=False)
    distances = _squared_distances(samples)
    return GramMatrix(_average_pairs(_kernel(distances, _median_positive(distances, samples)), codes))


def _squared_distances(samples: Samples) -> Float[np.ndarray, "sample sample"]:
    centred = samples - samples.mean(axis=0)  # distances of far-away clouds would cancel to rounding noise
    norms = np.einsum("ij,ij->i", centred, centred)
    distances: Float[np.ndarray, "sample sample"] = centred @ centred.T
    distances *= -2
    distances += norms[:, None]
    distances += norms
    np.maximum(distances, 0, out=distances)
    np.fill_diagonal(distances, 0.0)
    return distances


def _median_positive(distances: Float[np.ndarray, "sample sample"], samples: Samples) -> float:
    """Median squared distance between samples that differ; infinity, at which every kernel is 1, when none do."""
    rounding = ROUNDING * float(np.einsum("ij,ij->i", samples, samples).max())
    apart = distances[distances > rounding]
    return float(np.median(apart)) if apart.size else float("inf")


def _some_rows(parts: Sequence[Samples], seed: int) -> Samples:
    """All rows of some tables, or as many as a median needs, drawn without replacement; in 64 bits."""
    count = sum(map(len, parts))
    drawn = np.arange(count)
    if count > _MEDIAN_SAMPLES:
        drawn = np.sort(np.random.default_rng(seed).choice(count, size=_MEDIAN_SAMPLES, replace=False))
    ends = np.cumsum([len(part) for part in parts])
    rows = [
        part[drawn[(drawn >= end - len(part)) & (drawn < end)] - (end - len(part))]
        for part, end in zip(parts, ends, strict=True)
    ]
    return np.vstack(rows).astype(float, copy=False)


def _kernel(distances: Float[np.ndarray, "sample sample"], scale: float) -> Float[np.ndarray, "sample sample"]:
    """Mean of the Gaussian kernels; each narrower one is the square of the one before, so one exponential serves."""
    kernel = np.exp(distances / (-BANDWIDTH_FACTORS[0] * scale))
    total = kernel.copy()
    for _ in BANDWIDTH_FACTORS[1:]:
        kernel *= kernel
        total += kernel
    total /= len(BANDWIDTH_FACTORS)
    return total


def _average_pairs(kernel: Float[np.ndarray, "sample sample"], codes: Int[np.ndarray, "sample"]) -> Pairs:
    counts = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = kernel[order] if counts.max() == 1 else np.add.reduceat(kernel[order], starts, axis=0)
    both = rows[:, order] if counts.max() == 1 else np.add.reduceat(rows[:, order], starts, axis=1)
    averaged: Pairs = both / np.outer(counts, counts)
    return averaged


def _frequencies(features: int, scale: float, seed: int) -> Float32[np.ndarray, "feature frequency"]:
    """Gaussian frequencies whose mixture of widths is that of the exact kernel."""
    widths = np.resize(np.asarray(BANDWIDTH_FACTORS) * scale, FREQUENCIES)
    drawn = np.random.default_rng(seed).normal(size=(features, FREQUENCIES)) * np.sqrt(2 / widths)
    return drawn.astype(np.float32)
