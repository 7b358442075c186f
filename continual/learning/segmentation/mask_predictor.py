"""Serving one version that segments: pixels in, a mask of the image's own size out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from continual.domain.adapters import Task
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.segmentation.framing import Framing
from continual.learning.segmentation.judging import mask_of_scores
from continual.learning.segmentation.segmenting_network import SegmentingNetwork
from continual.learning.segmentation.tiles import resize_pixels
from continual.learning.views import standardise


@dataclass(frozen=True, slots=True)
class MaskAnswer:
    """A mask of class numbers (0 the background, 1 to K the classes) of an image or volume, and each class's share."""

    mask: UInt8[np.ndarray, "*position"]
    shares: Mapping[str, float]
    confidence: float
    """Mean over the pixels of the probability of the class that was chosen, in [0, 1]."""


def answer_of(network: DenseNetwork, scores: Float[Tensor, "klass *position"]) -> MaskAnswer:
    """What a network's scores of an image or a volume, at its own size, say."""
    mask = mask_of_scores(network, scores)
    sure = network.calibrated(scores[None])[0].max(dim=0).values.mean()
    shares = {name: float(np.mean(mask == number)) for number, name in enumerate(network.classes, start=1)}
    return MaskAnswer(mask, shares, float(sure))


class MaskPredictor:
    """One version ready to answer. Not safe for two threads at once: give it one executor thread or a lock."""

    task = Task.SEGMENTATION

    def __init__(self, network: SegmentingNetwork, backbone_digest: str) -> None:
        self._network = network
        self.backbone_digest = backbone_digest
        self.classes = network.classes

    @torch.inference_mode()
    def predict_mask(self, pixels: UInt8[np.ndarray, "height width 3"]) -> MaskAnswer:
        """The mask of an image, at the image's own size."""
        framing = Framing(self._network.grid.image_size)
        return answer_of(self._network, framing.back(self._scores(pixels), *pixels.shape[:2]))

    def predict(self, pixels: UInt8[np.ndarray, "height width 3"]) -> dict[str, float]:
        """Share of the image's pixels that each class covers, in [0, 1]."""
        return dict(self.predict_mask(pixels).shares)

    def _scores(self, pixels: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "klass size size"]:
        grid, device = self._network.grid, next(self._network.parameters()).device
        whole = resize_pixels(pixels, grid.image_size)
        tiles = [standardise(grid.cut(whole, tile), grid.tile) for tile in range(grid.tiles)]
        return grid.stitch(self._network.from_images(torch.stack(tiles).to(device))).cpu()
