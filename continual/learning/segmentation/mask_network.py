"""What networks that answer with masks share, whatever they are asked with: loss, foreground bias, probabilities."""

from abc import ABC

import torch
from jaxtyping import Float
from torch import Tensor, nn

from continual.learning.network import TunedNetwork
from continual.learning.segmentation.loss import DiceCrossEntropy
from continual.learning.segmentation.tiles import TileGrid


class MaskNetwork(TunedNetwork, ABC):
    """`classes` names the mask's numbers 1 to K; channel 0 of an answer's scores is the background.

    `foreground_bias` is added to the scores of all classes but the background wherever an answer is given; training and
    golden outputs never see it.
    """

    grid: TileGrid
    foreground_bias = 0.0

    def channels(self, classes: int) -> int:
        """A score for the background and one for every class."""
        return 1 + classes

    def criterion(self, label_smoothing: float) -> nn.Module:  # noqa: ARG002 (one signature for all tasks)
        """Dice and cross-entropy; labels are not smoothed, since a pixel at an edge is uncertain and the others not."""
        return DiceCrossEntropy()

    def answering(self, scores: Float[Tensor, "image klass *position"]) -> Float[Tensor, "image klass *position"]:
        """The scores that answers are read from: their largest channel is the mask."""
        biased = torch.full_like(scores, self.foreground_bias)
        biased[:, 0] = 0.0
        return scores + biased

    def calibrated(self, scores: Float[Tensor, "image klass *position"]) -> Float[Tensor, "image klass *position"]:
        """Probabilities of class scores, with the foreground's bias and at the temperature (Guo et al. 2017)."""
        return (self.answering(scores) / self.temperature).softmax(dim=1)
