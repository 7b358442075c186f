"""Kernel two-sample test on subjects, for embeddings and outputs; knows nothing of tables or verdicts.

Maximum mean discrepancy (Gretton et al. 2012) with a mixture of Gaussian kernels around the median heuristic. Each
subject is ONE point: the mean of its images' kernel embeddings, so a patient with 17 images weighs as much as one with
a single image, and images of one patient, which move together, are never shuffled apart. The statistic is the unbiased
U-statistic over pairs of different subjects, whose expectation does not depend on the number of images per subject. A
subject's similarity to itself does, and is left out. Permuting subjects between the windows is exact when subjects,
with however many images each has, are exchangeable. Between a window of single-image subjects and one of many-image
subjects it is approximate: 0 to 7 % alarms were measured at a level of 5 %.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring.detectors.detector import Detector, Effort, Finding
from monitoring.detectors.permuted import ROUNDING, Permuted
from monitoring.windows import Window, subject_codes

EXACT_SAMPLES = 2000
"""Above this many pooled samples the kernel is approximated by random Fourier features (Rahimi & Recht 2007)."""
BANDWIDTH_FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5)
"""Kernel widths as multiples of the median squared distance, each half of the one before."""
FREQUENCIES = 512
_MEDIAN_SAMPLES = 1000
_PERMUTATION_ROWS = 1000
_PERMUTATION_CELLS = 2_000_000
_FEATURE_ROWS = 512

Samples = Float[np.ndarray, "sample feature"]
Gram = Float[np.ndarray, "subject subject"]
Points = Float32[np.ndarray, "subject point"]
Groups = Float[np.ndarray, "group subject"]
"""Rows of 0 and 1: which subjects make a group."""


def measure(reference: Window, current: Window, family: SignalFamily, effort: Effort) -> tuple[Finding, ...]:
    """One finding whose score is the unbiased squared MMD (near 0, also below it, without drift).

    p = (1+b)/(1+B) over B permutations of whole subjects (Phipson & Smyth 2010). No finding for outputs that one of
    the windows lacks. Raises WindowError when the windows differ in width.
    """
    first, second = _rows(reference, family), _rows(current, family)
    if first is None or second is None:
        return ()
    if first.shape[1] != second.shape[1]:
        raise WindowError(
            f"{family} of {current.site} have {second.shape[1]} columns, those of {reference.site} {first.shape[1]}; "
            "compute both with one model"
        )
    codes, known = subject_codes(reference)
    new_codes, new = subject_codes(current)
    pooled = np.vstack([first, second]).astype(float, copy=False)
    similarity = _subject_similarity(pooled, np.concatenate([codes, new_codes + known]), effort.seed)
    score, null = _permute(similarity, new, effort)
    permuted = Permuted.of(null)
    detail = {"reference_subjects": known, "current_subjects": new, "permutations": len(null)}
    return (Finding(family.value, score, permuted.p_value(score), permuted.smallest_alarming, detail),)


def squared_distances(current: Window, references: Sequence[Window], seed: int) -> list[float]:
    """Unbiased squared MMD from the embeddings of `current` to each reference, with one kernel for all.

    Raises WindowError when a reference's embeddings differ in width.
    """
    windows = [*references, current]
    widths = {window.embeddings.shape[1] for window in windows}
    if len(widths) > 1:
        raise WindowError(f"embeddings of {sorted(widths)} columns cannot be compared; compute all with one backbone")
    pooled = np.vstack([window.embeddings for window in windows]).astype(float)
    scale = _typical_distance(_some_rows(pooled, seed))
    if scale is None:
        return [0.0] * len(references)
    frequencies, centre = _frequencies(pooled.shape[1], scale, seed), pooled.mean(axis=0)
    points = [
        _subject_features(window.embeddings - centre, subject_codes(window)[0], frequencies).astype(float)
        for window in windows
    ]
    here = points[-1]
    return [_within(there) + _within(here) - 2 * float(there.mean(axis=0) @ here.mean(axis=0)) for there in points[:-1]]


def _rows(window: Window, family: SignalFamily) -> Samples | None:
    return window.embeddings if family is SignalFamily.EMBEDDINGS else window.outputs


class _Similarity(Protocol):
    """Mean kernel values between different subjects, summed over groups of them."""

    subjects: int

    def inside(self, groups: Groups) -> Float[np.ndarray, "group"]:
        """Sum over ordered pairs of different members of each group."""

    def with_all(self) -> Float[np.ndarray, "subject"]:
        """Sum over each subject's pairs with all others."""


class _Gram:
    """Every pair's mean kernel value."""

    def __init__(self, values: Float[np.ndarray, "subject subject"]) -> None:
        np.fill_diagonal(values, 0.0)
        self._values, self.subjects = values, len(values)

    def inside(self, groups: Groups) -> Float[np.ndarray, "group"]:
        sums: Float[np.ndarray, "group"] = np.einsum("ij,ij->i", groups @ self._values, groups)
        return sums

    def with_all(self) -> Float[np.ndarray, "subject"]:
        sums: Float[np.ndarray, "subject"] = self._values.sum(axis=1)
        return sums


class _Points:
    """One point per subject whose inner products stand for kernel values, so that no pair is ever written down.

    Centred, which changes no mean discrepancy and leaves sums small enough for 32 bits.
    """

    def __init__(self, points: Points) -> None:
        points -= points.mean(axis=0, dtype=np.float64).astype(points.dtype)
        self._points, self.subjects = points, len(points)
        self._own = np.einsum("ij,ij->i", points, points).astype(float)

    def inside(self, groups: Groups) -> Float[np.ndarray, "group"]:
        sums = (groups.astype(self._points.dtype) @ self._points).astype(float)
        within: Float[np.ndarray, "group"] = np.einsum("ij,ij->i", sums, sums) - groups @ self._own
        return within

    def with_all(self) -> Float[np.ndarray, "subject"]:
        total = self._points.sum(axis=0, dtype=np.float64)
        sums: Float[np.ndarray, "subject"] = self._points @ total.astype(self._points.dtype) - self._own
        return sums


def _subject_similarity(samples: Samples, codes: Int[np.ndarray, "sample"], seed: int) -> _Similarity:
    """Mean kernel value between the images of each two subjects."""
    exact = len(samples) <= EXACT_SAMPLES
    distances = _squared_distances(samples if exact else _some_rows(samples, seed))
    scale = _median_positive(distances, samples)
    if scale is None:
        return _Points(np.zeros((int(codes.max()) + 1, 1), dtype=np.float32))
    if exact:
        return _Gram(_average_pairs(_kernel(distances, scale), codes))
    samples -= samples.mean(axis=0)  # kernels know distances only, and small angles keep their digits in 32 bits
    return _Points(_subject_features(samples, codes, _frequencies(samples.shape[1], scale, seed)))


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


def _median_positive(distances: Float[np.ndarray, "sample sample"], samples: Samples) -> float | None:
    """Median squared distance between samples that differ; None when all are the same."""
    rounding = ROUNDING * float(np.einsum("ij,ij->i", samples, samples).max())
    apart = distances[distances > rounding]
    return float(np.median(apart)) if apart.size else None


def _typical_distance(samples: Samples) -> float | None:
    return _median_positive(_squared_distances(samples), samples)


def _some_rows(samples: Samples, seed: int) -> Samples:
    if len(samples) <= _MEDIAN_SAMPLES:
        return samples
    return samples[np.random.default_rng(seed).choice(len(samples), size=_MEDIAN_SAMPLES, replace=False)]


def _kernel(distances: Float[np.ndarray, "sample sample"], scale: float) -> Float[np.ndarray, "sample sample"]:
    """Mean of the Gaussian kernels; each narrower one is the square of the one before, so one exponential serves."""
    kernel = np.exp(distances / (-BANDWIDTH_FACTORS[0] * scale))
    total = kernel.copy()
    for _ in BANDWIDTH_FACTORS[1:]:
        kernel *= kernel
        total += kernel
    total /= len(BANDWIDTH_FACTORS)
    return total


def _average_pairs(kernel: Float[np.ndarray, "sample sample"], codes: Int[np.ndarray, "sample"]) -> Gram:
    counts = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = kernel[order] if counts.max() == 1 else np.add.reduceat(kernel[order], starts, axis=0)
    both = rows[:, order] if counts.max() == 1 else np.add.reduceat(rows[:, order], starts, axis=1)
    averaged: Gram = both / np.outer(counts, counts)
    return averaged


def _frequencies(features: int, scale: float, seed: int) -> Float32[np.ndarray, "feature frequency"]:
    """Gaussian frequencies whose mixture of widths is that of the exact kernel."""
    widths = np.resize(np.asarray(BANDWIDTH_FACTORS) * scale, FREQUENCIES)
    drawn = np.random.default_rng(seed).normal(size=(features, FREQUENCIES)) * np.sqrt(2 / widths)
    return drawn.astype(np.float32)


def _subject_features(
    samples: Samples, codes: Int[np.ndarray, "sample"], frequencies: Float32[np.ndarray, "feature frequency"]
) -> Points:
    """Mean random Fourier feature of each subject; inner products approximate mean kernel values."""
    counts = np.bincount(codes)
    means = np.zeros((len(counts), 2 * FREQUENCIES), dtype=np.float32)
    order = np.argsort(codes, kind="stable")
    for start in range(0, len(samples), _FEATURE_ROWS):
        rows = order[start : start + _FEATURE_ROWS]
        angles = samples[rows].astype(np.float32) @ frequencies
        points = np.empty((len(rows), 2 * FREQUENCIES), dtype=np.float32)
        np.cos(angles, out=points[:, :FREQUENCIES])
        np.sin(angles, out=points[:, FREQUENCIES:])
        subjects, first_rows = np.unique(codes[rows], return_index=True)
        means[subjects] += points if len(subjects) == len(rows) else np.add.reduceat(points, first_rows, axis=0)
    means /= (np.sqrt(FREQUENCIES) * counts[:, None]).astype(np.float32)
    return means


def _within(points: Float[np.ndarray, "subject point"]) -> float:
    """Mean inner product between different subjects; with a single subject, the one with itself."""
    count = len(points)
    if count == 1:
        return float(points[0] @ points[0])
    total = points.sum(axis=0)
    return float(total @ total - np.einsum("ij,ij->", points, points)) / (count * (count - 1))


def _permute(similarity: _Similarity, current: int, effort: Effort) -> tuple[float, Float[np.ndarray, "permutation"]]:
    """The observed score and the permuted ones, every permutation a row of one matrix product."""
    generator = np.random.default_rng(effort.seed)
    observed = np.zeros((1, similarity.subjects))
    observed[0, similarity.subjects - current :] = 1.0
    with_all = similarity.with_all()
    scores = [_scores(similarity, with_all, observed)]
    most = max(1, min(_PERMUTATION_ROWS, _PERMUTATION_CELLS // similarity.subjects))
    for start in range(0, effort.permutations, most):
        rows = min(most, effort.permutations - start)
        scores.append(_scores(similarity, with_all, generator.permuted(np.tile(observed, (rows, 1)), axis=1)))
    return float(scores[0][0]), np.concatenate(scores[1:])


def _scores(
    similarity: _Similarity, with_all: Float[np.ndarray, "subject"], groups: Groups
) -> Float[np.ndarray, "permutation"]:
    """Squared MMD for each row of 0/1 membership in the current window; a window of one subject has no inner pairs."""
    current = round(float(groups[0].sum()))
    known = similarity.subjects - current
    inside = similarity.inside(groups)
    across = groups @ with_all - inside
    outside = with_all.sum() - 2 * across - inside
    pairs_inside, pairs_outside = max(current * (current - 1), 1), max(known * (known - 1), 1)
    scores: Float[np.ndarray, "permutation"] = (
        inside / pairs_inside + outside / pairs_outside - 2 * across / (known * current)
    )
    return scores


DETECTOR = Detector("mmd", (SignalFamily.EMBEDDINGS, SignalFamily.OUTPUTS), measure)
