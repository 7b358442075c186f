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

import numpy as np
from jaxtyping import Float

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring.detectors.detector import Detector, Effort, Finding
from monitoring.detectors.kernels import Cloud, PairSums, RandomFeatures, Samples, similarity
from monitoring.detectors.permuted import Permuted, permuted_groups
from monitoring.windows import Window, subject_codes


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
    known, new = _cloud(reference, first), _cloud(current, second)
    groups = permuted_groups(known.subjects, new.subjects, effort.permutations, effort.seed)
    scores = _scores(similarity([known, new], effort.seed).sums(groups), known.subjects, new.subjects)
    score, permuted = float(scores[0]), Permuted.of(scores[1:])
    detail = {
        "reference_subjects": known.subjects,
        "current_subjects": new.subjects,
        "permutations": effort.permutations,
    }
    return (Finding(family.value, score, permuted.p_value(score), permuted.smallest_alarming, detail),)


def squared_distances(current: Window, references: Sequence[Window], seed: int) -> list[float]:
    """Unbiased squared MMD from the embeddings of `current` to each reference, with one kernel for all.

    Raises WindowError when a reference's embeddings differ in width.
    """
    windows = [*references, current]
    widths = {window.embeddings.shape[1] for window in windows}
    if len(widths) > 1:
        raise WindowError(f"embeddings of {sorted(widths)} columns cannot be compared; compute all with one backbone")
    clouds = [_cloud(window, window.embeddings) for window in windows]
    counts = [cloud.subjects for cloud in clouds]
    each = np.repeat(np.eye(len(clouds), dtype=bool), counts, axis=1)
    # What two groups have between them is what their union has inside, less what each of them has.
    sums = RandomFeatures(clouds, seed).sums(np.vstack([each, each[:-1] | each[-1]])).inside
    within, unions = sums[: len(clouds)], sums[len(clouds) :]
    spreads = [_mean_pair(inside, count) for inside, count in zip(within, counts, strict=True)]
    return [
        spreads[place] + spreads[-1] - float(union - within[place] - within[-1]) / (counts[place] * counts[-1])
        for place, union in enumerate(unions)
    ]


def _rows(window: Window, family: SignalFamily) -> Samples | None:
    return window.embeddings if family is SignalFamily.EMBEDDINGS else window.outputs


def _cloud(window: Window, samples: Samples) -> Cloud:
    return Cloud(samples, *subject_codes(window))


def _scores(sums: PairSums, known: int, new: int) -> Float[np.ndarray, "permutation"]:
    """Squared MMD for each choice of the current subjects; a window of one subject has no inner pairs."""
    across = sums.with_all - sums.inside
    outside = sums.total - 2 * across - sums.inside
    pairs_inside, pairs_outside = max(new * (new - 1), 1), max(known * (known - 1), 1)
    scores: Float[np.ndarray, "permutation"] = (
        sums.inside / pairs_inside + outside / pairs_outside - 2 * across / (known * new)
    )
    return scores


def _mean_pair(inside: float, count: int) -> float:
    """Mean kernel value between different subjects; that of a single subject with itself is at most 1."""
    return inside / (count * (count - 1)) if count > 1 else 1.0


DETECTOR = Detector("mmd", (SignalFamily.EMBEDDINGS, SignalFamily.OUTPUTS), measure)
