"""An image as a grid of square tiles, and a tile's views: numbers, places, cutting and stitching.

View number = tile + tiles x variant; variant 0 is the plain tile, so the views below `tiles` are the image itself.
Knows arrays; knows nothing of networks or files.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from continual.domain.errors import LearningError
from continual.learning.litemedsam import Backbone, LiteMedSam

PREFERRED_TILE_PX = 168
"""Twelve of DINOv2's patches: few enough tokens that a step is cheap, enough pixels to see where a structure leads."""


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Squares of `tile` pixels that cover a square image of `image_size` pixels without overlap, row by row."""

    image_size: int
    tile: int

    def __post_init__(self) -> None:
        if self.tile < 1 or self.image_size < self.tile or self.image_size % self.tile:
            raise LearningError(
                f"images of {self.image_size} pixels do not divide into tiles of {self.tile}; choose --image-size as a "
                f"multiple of --tile, e.g. {max(1, round(self.image_size / max(self.tile, 1))) * self.tile}"
            )

    @property
    def tiles(self) -> int:
        """How many tiles an image has."""
        return (self.image_size // self.tile) ** 2

    def tile_of(self, view: int) -> int:
        """Which tile a view shows."""
        return view % self.tiles

    def variant_of(self, view: int) -> int:
        """Which variant of its tile a view is."""
        return view // self.tiles

    def cut(self, image: np.ndarray, tile: int) -> np.ndarray:
        """One tile of an array whose first two dimensions are those of the image; a view into it, not a copy."""
        row, column = divmod(tile, self.image_size // self.tile)
        top, left = row * self.tile, column * self.tile
        return image[top : top + self.tile, left : left + self.tile]

    def stitch(self, tiles: Float[Tensor, "tile klass side side"]) -> Float[Tensor, "klass size size"]:
        """Scores of all tiles of one image, in order of their numbers, as scores of the image."""
        across = self.image_size // self.tile
        rows = [torch.cat(list(tiles[first : first + across]), dim=2) for first in range(0, self.tiles, across)]
        return torch.cat(rows, dim=1)


def choose_tile(network: Backbone, image_size: int) -> int:
    """The largest side up to 168 pixels that divides the image and is divided by the backbone's patches.

    The image's own side where there is none, and for LiteMedSAM, whose boxes are of whole images.
    """
    if isinstance(network, LiteMedSam):
        return image_size
    patch = max(network.patch_embed.patch_size)
    fitting = [side for side in range(patch, PREFERRED_TILE_PX + 1, patch) if image_size % side == 0]
    return max(fitting, default=image_size)


def check_tile(network: Backbone, grid: TileGrid) -> None:
    """Raise LearningError when a tile is not cut evenly by the backbone's patches, or is a part to LiteMedSAM."""
    if isinstance(network, LiteMedSam):
        if grid.tiles != 1:
            raise LearningError(
                f"LiteMedSAM sees whole images, and tiles of {grid.tile} pixels were asked for; leave out --tile"
            )
        return
    patch = max(network.patch_embed.patch_size)
    if grid.tile % patch:
        raise LearningError(
            f"tiles of {grid.tile} pixels do not divide into patches of {patch}; choose --tile "
            f"{max(1, round(grid.tile / patch)) * patch}"
        )


def resize_pixels(pixels: UInt8[np.ndarray, "height width 3"], image_size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The image as a square of `image_size` pixels, in 8 bits: what training, evaluation and serving all start from."""
    return scale_pixels(pixels, image_size, image_size)


def scale_pixels(
    pixels: UInt8[np.ndarray, "height width 3"], rows: int, columns: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The image at another size, in 8 bits."""
    if pixels.shape[:2] == (rows, columns):
        return pixels
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()[None]
    resized = interpolate(image, size=(rows, columns), mode="bilinear", antialias=True, align_corners=False)
    answer: UInt8[np.ndarray, "rows columns 3"] = resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return answer


def resize_mask(mask: UInt8[np.ndarray, "height width"], image_size: int) -> UInt8[np.ndarray, "size size"]:
    """The mask as a square of `image_size` pixels, each the number of the nearest pixel: numbers cannot be averaged."""
    return scale_mask(mask, image_size, image_size)


def scale_mask(
    mask: UInt8[np.ndarray, "height width"], to_rows: int, to_columns: int
) -> UInt8[np.ndarray, "rows columns"]:
    """The mask at another size, each pixel the number of the nearest."""
    height, width = mask.shape
    rows = ((np.arange(to_rows) + 0.5) * height / to_rows).astype(int)
    columns = ((np.arange(to_columns) + 0.5) * width / to_columns).astype(int)
    resized: UInt8[np.ndarray, "rows columns"] = mask[rows[:, None], columns]
    return resized
