"""Cached tiles: tokens at the split per image and variant, the image's own pixels, its mask, its frozen features.

Per image about 1.0 MB at 504 pixels for pixels and mask and 1.0 MB for every variant's tokens (16 bit); nothing else is
kept, and a file is written whole or not at all. Knows numpy files and the frozen network; knows nothing of databases:
pixels and masks come from functions it is given.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from continual.domain.errors import StreamError
from continual.domain.samples import IGNORED, Sample
from continual.learning.activations import ActivationCache, ActivationKey, PixelSource, Progress, write_whole
from continual.learning.cached_files import file_of
from continual.learning.network import embed_prefix, finish_features
from continual.learning.segmentation.tiles import TileGrid, resize_mask, resize_pixels
from continual.learning.views import standardise, turned_as, view_of

MaskSource = Callable[[Sample], UInt8[np.ndarray, "height width"]]
"""A sample's mask as it was sent: class numbers, 0 the background, 255 outside the field of view."""


class TileCache:
    """Tiles of images by digest; `fill` computes what is missing. A corrected mask is a file of its own."""

    def __init__(
        self,
        folder: Path,
        key: ActivationKey,
        tile: int,
        network: VisionTransformer,
        device: torch.device,
        mask_of: MaskSource,
    ) -> None:
        self.key = key
        self.grid = TileGrid(key.image_size, tile)
        self._folder = folder / f"{key.folder()}-t{tile}"
        self._network = network.to(device)
        self._device = device
        self._mask_of = mask_of

    def missing(self, samples: Iterable[Sample], views: int) -> list[Sample]:
        """The samples that lack their mask or one of the variants 0 to `views` - 1, each image and mask once."""
        absent = {
            (sample.digest, sample.mask): sample
            for sample in samples
            if not all(self._tokens_path(sample.digest, variant).exists() for variant in range(views))
            or (sample.mask is not None and not self._mask_path(sample).exists())
        }
        return list(absent.values())

    def fill(self, samples: Iterable[Sample], views: int, pixels_of: PixelSource, progress: Progress) -> None:
        """Compute what `missing` names; `progress` is told how many images ended."""
        for sample in self.missing(samples, views):
            if sample.mask is not None and not self._mask_path(sample).exists():
                write_whole(self._mask_path(sample), resize_mask(self._mask_of(sample), self.grid.image_size))
            lacking = [v for v in range(views) if not self._tokens_path(sample.digest, v).exists()]
            if lacking:
                self._compute(sample.digest, resize_pixels(pixels_of(sample), self.grid.image_size), lacking)
            progress(1)

    def tokens(self, digest: str, view: int) -> Float16[np.ndarray, "token width"]:
        """Tokens at the split of one view of one tile; FileNotFoundError when `fill` has not been asked for it."""
        variant, tile = self.grid.variant_of(view), self.grid.tile_of(view)
        stored = np.load(self._tokens_path(digest, variant), mmap_mode="r", allow_pickle=False)
        return np.array(stored[tile])

    def pixels(self, digest: str, view: int) -> UInt8[np.ndarray, "side side 3"]:
        """The pixels of one view of one tile."""
        stored = np.load(self._pixels_path(digest), mmap_mode="r", allow_pickle=False)
        return view_of(np.array(self.grid.cut(stored, self.grid.tile_of(view))), self.grid.variant_of(view))

    def mask(self, sample: Sample, view: int) -> UInt8[np.ndarray, "side side"]:
        """The mask of one view of one tile, at the cache's own resolution."""
        tile = self.grid.cut(self._stored_mask(sample), self.grid.tile_of(view))
        return np.array(turned_as(tile, self.grid.variant_of(view)))

    def whole_mask(self, sample: Sample) -> UInt8[np.ndarray, "height width"]:
        """The sample's mask as it was sent, at the image's own size: what predictions are held against."""
        return self._mask_of(sample)

    def inputs(self, digest: str, view: int) -> tuple[Float[Tensor, "token width"], Float[Tensor, "3 side side"]]:
        """What a network is given of one view of one tile."""
        tokens = torch.from_numpy(self.tokens(digest, view)).float()
        return tokens, standardise(self.pixels(digest, view), self.grid.tile)

    def features(self, digests: Sequence[str]) -> Float[np.ndarray, "image feature"]:
        """Frozen features of whole images, each seen at the side of one tile, one row per digest in the order given."""
        return np.stack([np.load(self._features_path(digest), allow_pickle=False) for digest in digests])

    def contents(self, sample: Sample) -> Int[np.ndarray, "tile 256"]:
        """How many pixels of each class number every tile of the sample's mask holds."""
        mask = self._stored_mask(sample)
        tiles = [self.grid.cut(mask, tile) for tile in range(self.grid.tiles)]
        return np.stack([np.bincount(tile.ravel(), minlength=IGNORED + 1) for tile in tiles])

    def _stored_mask(self, sample: Sample) -> UInt8[np.ndarray, "size size"]:
        if sample.mask is None:
            raise StreamError("1 sample of the experience has no mask; send its mask, or leave it out")
        stored: UInt8[np.ndarray, "size size"] = np.load(self._mask_path(sample), mmap_mode="r", allow_pickle=False)
        return stored

    def _compute(self, digest: str, pixels: UInt8[np.ndarray, "size size 3"], variants: Sequence[int]) -> None:
        side = self.grid.tile
        if not self._features_path(digest).exists():
            whole = standardise(pixels, side)[None].to(self._device)
            tokens = embed_prefix(self._network, whole, self.key.blocks)
            features = finish_features(self._network, tokens, self.key.blocks)
            write_whole(self._features_path(digest), features[0].cpu().numpy())
        if not self._pixels_path(digest).exists():
            write_whole(self._pixels_path(digest), pixels)
        tiles = [self.grid.cut(pixels, tile) for tile in range(self.grid.tiles)]
        for variant in variants:
            images = torch.stack([standardise(view_of(tile, variant), side) for tile in tiles])
            tokens = embed_prefix(self._network, images.to(self._device), self.key.blocks)
            write_whole(self._tokens_path(digest, variant), tokens.half().cpu().numpy())

    def _tokens_path(self, digest: str, variant: int) -> Path:
        return self._folder / file_of(digest, f"v{variant}")

    def _pixels_path(self, digest: str) -> Path:
        return self._folder / file_of(digest, "pixels")

    def _features_path(self, digest: str) -> Path:
        return self._folder / file_of(digest, "features")

    def _mask_path(self, sample: Sample) -> Path:
        return self._folder / file_of(sample.digest, f"mask-{str(sample.mask)[:16]}")


Cache = ActivationCache | TileCache
"""Where activations are kept, which also tells the task: whole images are classified, tiles segmented."""
