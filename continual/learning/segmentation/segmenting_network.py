"""The segmenting network: the same backbone and LoRA as in classification, a decoder for a head.

Knows tokens and tiles; knows nothing of sites, files or strategies.
"""

from collections.abc import Sequence

from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from continual.learning.network import LoraShape, embed_prefix
from continual.learning.segmentation.decoder import Decoder
from continual.learning.segmentation.mask_network import MaskNetwork
from continual.learning.segmentation.tiles import TileGrid


class SegmentingNetwork(MaskNetwork):
    """A tile's tokens at the split and its standardised pixels in, class scores of every pixel out."""

    head: Decoder

    def __init__(
        self, network: VisionTransformer, shape: LoraShape, classes: Sequence[str], grid: TileGrid, seed: int = 0
    ) -> None:
        super().__init__(network, shape, classes, seed, lambda count: Decoder(network.embed_dim, count))
        self.grid = grid

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

    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' weights stay bit for bit."""
        added = self._unknown(classes)
        if added:
            self.head.grow(len(added))
            self.classes = (*self.classes, *added)
