"""What networks that segment share, of images and of volumes: their loss, and how an answer is read from scores.

Knows scores; knows nothing of tiles, patches, sites or files.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from continual.learning.network import TunedNetwork
from continual.learning.segmentation.loss import DiceCrossEntropy


class DenseNetwork(TunedNetwork, ABC):
    """A score for every class and position. `classes` names the mask's numbers 1 to K; channel 0 is the background.

    `foreground_bias` is added to the scores of all classes but the background wherever an answer is given; training and
    golden outputs never see it.
    """

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

    @abstractmethod
    def whole_scores(self, whole: Any) -> Float[Tensor, "klass *position"]:
        """Class scores of a whole image or volume, from what a cache's `whole` gives, on the CPU."""
