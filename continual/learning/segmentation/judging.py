"""What a segmenting network says on stored samples: masks, Dice per image, calibration over pixels.

An image's tiles, or a volume's patches, are scored one by one and joined; its mask is told, and held against, at its
own size. A box network is asked with the boxes of the image's own mask (an oracle's prompt), for drift with the whole
image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from continual.domain.adapters import SiteOutcomes
from continual.domain.boxes import Box
from continual.domain.metrics import chance_dice, dice, expected_calibration_error
from continual.domain.samples import IGNORED, Sample
from continual.learning.activations import Progress
from continual.learning.devices import mixed_precision
from continual.learning.segmentation.box_network import BoxNetwork
from continual.learning.segmentation.boxes import boxes_of, filled_boxes
from continual.learning.segmentation.dense_cache import DenseCache
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.segmentation.tile_cache import TileCache
from continual.learning.temperature import fit_temperature

PIXELS_PER_IMAGE = 4096
"""Most pixels of one image that calibration looks at, evenly spread: neighbours say almost the same."""
BIASES = tuple(round(-2.0 + 0.25 * step, 2) for step in range(17))
"""Foreground biases that are tried, in units of class scores."""


@dataclass(frozen=True, slots=True)
class DenseScore:
    """Mean Dice of a site's images in [0, 1] and calibration error over pixels in [0, 1] (lower is better)."""

    site: str
    dice: float
    calibration_error: float
    samples: int

    @property
    def value(self) -> float:
        """The metric that versions are compared by."""
        return self.dice


def image_scores(network: DenseNetwork, cache: DenseCache, digest: str) -> Float[Tensor, "klass *position"]:
    """Class scores (logits, without bias and temperature) of a whole cached image, joined from its plain parts.

    Of a box network under whole-image boxes.
    """
    network.eval()
    return network.whole_scores(cache.whole(digest))


@torch.inference_mode()
def box_scores(
    network: BoxNetwork, cache: TileCache, digest: str, boxes: Mapping[int, Box]
) -> Float[Tensor, "klass size size"]:
    """Class scores of a cached image under boxes of the square by class number."""
    network.eval()
    device = next(network.parameters()).device
    with mixed_precision(device):
        scores = network.ask(cache.whole(digest)[0].to(device), boxes)
    return scores[0].float().cpu()


def mask_of_scores(network: DenseNetwork, scores: Float[Tensor, "klass *position"]) -> UInt8[np.ndarray, "*position"]:
    """The mask that scores say: the class of the largest score once the foreground's bias is added."""
    answer: UInt8[np.ndarray, "*position"] = network.answering(scores[None])[0].argmax(dim=0).byte().numpy()
    return answer


def mean_probabilities(
    network: DenseNetwork, cache: DenseCache, digests: Sequence[str], progress: Progress
) -> Float[np.ndarray, "image klass"]:
    """Mean over each image's pixels of the probabilities of background and classes, summing to 1."""
    rows = [np.empty((0, network.channels(len(network.classes))), dtype=np.float32)]
    for digest in digests:
        answers = network.calibrated(image_scores(network, cache, digest)[None])
        rows.append(answers.flatten(2).mean(dim=2).numpy())
        progress(1)
    return np.concatenate(rows)


def dense_outcomes(
    network: DenseNetwork, cache: DenseCache, site: str, samples: Sequence[Sample], progress: Progress
) -> tuple[SiteOutcomes, DenseScore]:
    """The network's Dice per image and score on a site's samples with masks, in the order given.

    Samples without a mask are left out. Raises ValueError when none is left.
    """
    masked = [sample for sample in samples if sample.mask is not None]
    found, sure, right, masks = [], [], [], []
    for _, mask, scores in _judged(network, cache, masked, progress):
        answer = mask_of_scores(network, scores)
        found.append(dice(mask, answer, len(network.classes)))
        masks.append(mask)
        chosen = _spread(mask)
        told = network.calibrated(scores.flatten(1)[None, :, chosen])[0].max(dim=0).values
        sure.append(told.numpy())
        right.append(answer.ravel()[chosen] == mask.ravel()[chosen])
    outcomes = SiteOutcomes(
        site,
        tuple(sample.subject for sample in masked),
        scores=tuple(found),
        chance=blind_dice(masks, len(network.classes), boxed=isinstance(network, BoxNetwork)),
    )
    error = expected_calibration_error(np.concatenate(sure), np.concatenate(right))
    return outcomes, DenseScore(site, float(np.mean(found)), error, len(masked))


def calibrate_masks(network: DenseNetwork, cache: DenseCache, samples: Sequence[Sample], progress: Progress) -> float:
    """Fit the foreground's bias, then the temperature, on samples it was not trained on; return the temperature.

    The bias is the one of the largest mean Dice, every site alike, and of equally good ones the nearest to 0; without
    a sample it is 0. The temperature then has the smallest negative log-likelihood over pixels, every site alike.
    """
    masked = [sample for sample in samples if sample.mask is not None]
    network.foreground_bias, network.temperature = 0.0, 1.0
    if not masked:
        return 1.0
    reached: dict[float, dict[str, list[float]]] = {bias: {} for bias in BIASES}
    pixels, numbers, sites, offered = [], [], [], []
    for sample, mask, scores in _judged(network, cache, masked, progress):
        for bias in BIASES:
            network.foreground_bias = bias
            answer = mask_of_scores(network, scores)
            reached[bias].setdefault(sample.site, []).append(dice(mask, answer, len(network.classes)))
        chosen = _spread(mask)
        pixels.append(scores.flatten(1)[:, chosen].T)
        numbers.append(mask.ravel()[chosen])
        sites += [sample.site] * len(chosen)
        offered.append(np.tile(_asked(network, mask), (len(chosen), 1)))
    means = {bias: np.mean([np.mean(values) for values in by_site.values()]) for bias, by_site in reached.items()}
    network.foreground_bias = max(BIASES, key=lambda bias: (round(float(means[bias]), 6), -abs(bias)))
    biased, targets = network.answering(torch.cat(pixels)).numpy(), np.concatenate(numbers).astype(np.int64)
    network.temperature = fit_temperature(biased, targets, sites, np.concatenate(offered))
    return network.temperature


def _asked(network: DenseNetwork, mask: UInt8[np.ndarray, "*position"]) -> Bool[np.ndarray, "klass"]:
    """Which classes an image was asked about: with boxes those that have one, and the background; else all of them."""
    count = len(network.classes)
    if not isinstance(network, BoxNetwork):
        return np.ones(1 + count, dtype=bool)
    return np.array([True, *(number in boxes_of(mask, count) for number in range(1, 1 + count))])


def _judged(
    network: DenseNetwork, cache: DenseCache, samples: Sequence[Sample], progress: Progress
) -> Iterator[tuple[Sample, UInt8[np.ndarray, "*position"], Float[Tensor, "klass *position"]]]:
    for sample in samples:
        mask = cache.whole_mask(sample)
        if isinstance(network, BoxNetwork) and isinstance(cache, TileCache):
            boxes = boxes_of(mask, len(network.classes))
            framed = {number: cache.framing.box(box, *mask.shape) for number, box in boxes.items()}
            scores = box_scores(network, cache, sample.digest, framed)
        else:
            scores = image_scores(network, cache, sample.digest)
        yield sample, mask, cache.at_own_size(scores, *mask.shape)
        progress(1)


def blind_dice(masks: Sequence[UInt8[np.ndarray, "*position"]], classes: int, *, boxed: bool) -> float:
    """What can be had without looking: the best constant answer, and where boxes are given these, filled."""
    constant = chance_dice(masks, classes)
    if not boxed:
        return constant
    return max(constant, float(np.mean([dice(mask, filled_boxes(mask, classes), classes) for mask in masks])))


def _spread(mask: UInt8[np.ndarray, "*position"]) -> np.ndarray:
    """Places of pixels inside the field of view, at most `PIXELS_PER_IMAGE`, the same ones each time.

    Drawn at random: of every so-many-th pixel all may lie in a few columns, or in one slice.
    """
    inside = np.flatnonzero(mask.ravel() != IGNORED)
    count = min(len(inside), PIXELS_PER_IMAGE)
    return np.sort(np.random.default_rng(0).choice(inside, count, replace=False))
