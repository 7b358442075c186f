"""How an image of any size becomes the square that a backbone sees, and what was said of the square the image's again.

For a vision transformer the image is stretched. LiteMedSAM's own way (Ma et al. 2024): the longest side is brought to
the square's, grey levels to the whole range, and what is left, right or below, is filled with 0.
Knows arrays and tensors; knows nothing of networks' insides or of files.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from continual.domain.boxes import Box
from continual.domain.samples import IGNORED
from continual.learning.litemedsam import Backbone, LiteMedSam
from continual.learning.segmentation.tiles import resize_mask, resize_pixels, scale_mask, scale_pixels
from continual.learning.views import at_shape, standardise


@dataclass(frozen=True, slots=True)
class Framing:
    """A square of `side` pixels; `padded` keeps an image's shape and fills the rest, otherwise it is stretched."""

    side: int
    padded: bool = False

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the square that an image of this size covers, from the top left."""
        if not self.padded:
            return self.side, self.side
        scale = self.side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def pixels(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "side side 3"]:
        """The image in the square, in 8 bits."""
        if not self.padded:
            return resize_pixels(image, self.side)
        rows, columns = self.extent(*image.shape[:2])
        small = scale_pixels(image, rows, columns).astype(np.float32)
        low, high = float(small.min()), float(small.max())
        framed = np.zeros((self.side, self.side, 3), dtype=np.uint8)
        framed[:rows, :columns] = np.rint((small - low) * (255.0 / max(high - low, 1.0)))
        return framed

    def mask(self, mask: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "side side"]:
        """The mask in the square; what is filled is nobody's."""
        if not self.padded:
            return resize_mask(mask, self.side)
        rows, columns = self.extent(*mask.shape)
        framed = np.full((self.side, self.side), IGNORED, dtype=np.uint8)
        framed[:rows, :columns] = scale_mask(mask, rows, columns)
        return framed

    def standardised(self, pixels: UInt8[np.ndarray, "rows columns 3"], side: int) -> Float[Tensor, "3 side side"]:
        """What the backbone is given of the square, or of a tile of it."""
        if not self.padded:
            return standardise(pixels, side)
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255.0

    def back(
        self, scores: Float[Tensor, "klass side side"], height: int, width: int
    ) -> Float[Tensor, "klass height width"]:
        """Scores of the square brought to the image's own size (bilinear)."""
        rows, columns = self.extent(height, width)
        return at_shape(scores[:, :rows, :columns], (height, width))

    def box(self, box: Box, height: int, width: int) -> Box:
        """A box of an image of this size, in the square."""
        rows, columns = self.extent(height, width)
        down, across = rows / height, columns / width
        return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)


def framing_of(network: Backbone, side: int) -> Framing:
    """How this backbone sees images."""
    return Framing(side, padded=isinstance(network, LiteMedSam))
