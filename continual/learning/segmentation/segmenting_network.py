"""The segmenting network: the same backbone and LoRA as in classification, a decoder for a head.

Knows tokens and tiles; knows nothing of sites, files or strategies.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.learning.network import LoraShape, TunedNetwork, embed_prefix
from continual.learning.segmentation.decoder import Decoder
from continual.learning.segmentation.loss import DiceCrossEntropy
from continual.learning.segmentation.tiles import TileGrid


class SegmentingNetwork(TunedNetwork):
    """A tile's tokens at the split and its standardised pixels in, class scores of every pixel out.

    `classes` names the mask's numbers 1 to K; channel 0 of the scores is the background. `foreground_bias` is added to
    the scores of all classes but the background wherever an answer is given; training and golden outputs never see it.
    """

    head: Decoder

    def __init__(
        self, network: VisionTransformer, shape: LoraShape, classes: Sequence[str], grid: TileGrid, seed: int = 0
    ) -> None:
        super().__init__(network, shape, classes, seed, lambda count: Decoder(network.embed_dim, count))
        self.grid = grid
        self.foreground_bias = 0.0

    def channels(self, classes: int) -> int:
        """A score for the background and one for every class."""
        return 1 + classes

    def criterion(self, label_smoothing: float) -> nn.Module:  # noqa: ARG002 (one signature for all tasks)
        """Dice and cross-entropy; labels are not smoothed, since a pixel at an edge is uncertain and the others not."""
        return DiceCrossEntropy()

    def forward(
        self, tokens: Float[Tensor, "tile token width"], pixels: Float[Tensor, "tile 3 side side"]
    ) -> Float[Tensor, "tile klass side side"]:
        """Class scores of every pixel before softmax."""
        patches = self.tuned(tokens)[:, self.vision.num_prefix_tokens :]
        side = pixels.shape[-1] // max(self.vision.patch_embed.patch_size)
        grid = patches.transpose(1, 2).reshape(len(patches), -1, side, side)
        scores: Tensor = self.head(grid, pixels)
        return scores

    def from_images(self, images: Float[Tensor, "tile 3 side side"]) -> Float[Tensor, "tile klass side side"]:
        """Class scores of standardised tiles, through the whole path from pixels to head."""
        scores: Tensor = self(embed_prefix(self.vision, images, self.split), images)
        return scores

    def answering(self, scores: Float[Tensor, "image klass *position"]) -> Float[Tensor, "image klass *position"]:
        """The scores that answers are read from: their largest channel is the mask."""
        biased = torch.full_like(scores, self.foreground_bias)
        biased[:, 0] = 0.0
        return scores + biased

    def calibrated(self, scores: Float[Tensor, "image klass *position"]) -> Float[Tensor, "image klass *position"]:
        """Probabilities of class scores, with the foreground's bias and at the temperature (Guo et al. 2017)."""
        return (self.answering(scores) / self.temperature).softmax(dim=1)

    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' weights stay bit for bit."""
        added = self._unknown(classes)
        if added:
            self.head.grow(len(added))
            self.classes = (*self.classes, *added)
