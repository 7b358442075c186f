"""Cached tiles: tokens at the split per image and variant, the image's own pixels, its mask, its frozen features.

Per image about 1.0 MB at 504 pixels for pixels and mask and 1.0 MB for every variant's tokens (16 bit); nothing else is
kept. Knows the frozen network and tiles; what is a file and when it goes is the business of `dense_cache`.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from continual.domain.errors import LearningError
from continual.domain.samples import Sample
from continual.learning.activations import ActivationCache, ActivationKey, CachePlace, Picture
from continual.learning.cached_files import FEATURES, kinds_of, view_kind
from continual.learning.litemedsam import Backbone
from continual.learning.network import embed_prefix, finish_features
from continual.learning.segmentation.dense_cache import PICTURE, DenseCache, DensePlace, MaskSource
from continual.learning.segmentation.framing import framing_of
from continual.learning.segmentation.tiles import TileGrid
from continual.learning.views import turned_as, view_of
from continual.learning.volumes.grid import Volume


class TileCache(DenseCache):
    """Tiles of images by digest; `fill` computes what is missing. A corrected mask is a file of its own.

    For a backbone that is asked with boxes, `prompted`, the one tile is the image, and its pixels are not kept.
    """

    def __init__(
        self,
        place: CachePlace | Path,
        key: ActivationKey,
        tile: int,
        network: Backbone,
        device: torch.device,
        mask_of: MaskSource,
    ) -> None:
        held = place if isinstance(place, CachePlace) else CachePlace(place)
        super().__init__(DensePlace(held, f"t{tile}"), key, mask_of)
        self.grid = TileGrid(key.image_size, tile)
        self.framing = framing_of(network, key.image_size)
        self._network = network.to(device)
        self._device = device

    @property
    def tile(self) -> int:
        """Side of a tile in pixels."""
        return self.grid.tile

    @property
    def prompted(self) -> bool:
        """Whether networks over it are asked with boxes."""
        return self.framing.padded

    def view(self, digest: str, tile: int, variant: int) -> int:  # noqa: ARG002 (all images have as many tiles)
        """Number of the view that shows a tile in a variant."""
        return tile + self.grid.tiles * variant

    def tokens(self, digest: str, view: int) -> Float16[np.ndarray, "token width"]:
        """Tokens at the split of one view of one tile; FileNotFoundError when `fill` has not been asked for it."""
        stored = self._read(digest, view_kind(self.grid.variant_of(view)))
        return np.array(stored[self.grid.tile_of(view)])

    def pixels(self, digest: str, view: int) -> UInt8[np.ndarray, "side side 3"]:
        """The pixels of one view of one tile."""
        stored = self._read(digest, PICTURE)
        tile = np.array(self.grid.cut(stored, self.grid.tile_of(view)))
        return view_of(tile, self.grid.variant_of(view), upright=self.key.upright)

    def mask(self, sample: Sample, view: int) -> UInt8[np.ndarray, "side side"]:
        """The mask of one view of one tile, at the cache's own resolution."""
        tile = self.grid.cut(self._stored_mask(sample), self.grid.tile_of(view))
        return np.array(turned_as(tile, 0 if self.key.upright else self.grid.variant_of(view)))

    def inputs(self, digest: str, view: int) -> tuple[Float[Tensor, "token width"], Float[Tensor, "3 side side"]]:
        """What a network is given of one view of one tile."""
        tokens = torch.from_numpy(self.tokens(digest, view)).float()
        return tokens, self.framing.standardised(self.pixels(digest, view), self.grid.tile)

    def whole(self, digest: str) -> tuple[Tensor, ...]:
        """What a network is given of all plain tiles in order; of one that is asked with boxes the image's tokens."""
        if self.prompted:
            return (torch.from_numpy(self.tokens(digest, 0)).float()[None],)
        tiles = [self.inputs(digest, tile) for tile in range(self.grid.tiles)]
        return tuple(torch.stack(part) for part in zip(*tiles, strict=True))

    def at_own_size(self, scores: Float[Tensor, "klass size size"], *shape: int) -> Float[Tensor, "klass *own"]:
        """Scores of the square brought to an image's own size."""
        return self.framing.back(scores, *shape)

    def _cuts(self, mask: UInt8[np.ndarray, "size size"]) -> Iterable[UInt8[np.ndarray, "side side"]]:
        return [self.grid.cut(mask, tile) for tile in range(self.grid.tiles)]

    def _kinds(self, views: int) -> tuple[str, ...]:
        return (*kinds_of(views), *([PICTURE] if views and not self.prompted else []))

    def _fitted_mask(self, sample: Sample) -> UInt8[np.ndarray, "size size"]:
        return self.framing.mask(self._mask_of(sample))

    def _made(self, picture: Picture, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """Whatever of features, pixels and variants is asked for."""
        if isinstance(picture, Volume):
            raise LearningError("1 volume was given to an adapter of images; release an adapter of volumes for it")
        side, small, made = self.grid.tile, self.framing.pixels(picture), {}
        tiles = [self.grid.cut(small, tile) for tile in range(self.grid.tiles)]
        shrunk = self._embedded(self.framing.standardised(small, side)[None]) if FEATURES in kinds else None
        for kind in kinds:
            if kind == PICTURE:
                made[kind] = small
            elif kind == FEATURES and shrunk is not None:
                made[kind] = finish_features(self._network, shrunk, self.key.blocks)[0].cpu().numpy()
            elif kind == view_kind(0) and shrunk is not None and self.grid.tiles == 1:
                # The one tile is the image that the features are of: seconds on a large backbone.
                made[kind] = shrunk.half().cpu().numpy()
            else:
                views = [view_of(tile, int(kind[1:]), upright=self.key.upright) for tile in tiles]
                shown = torch.stack([self.framing.standardised(view, side) for view in views])
                made[kind] = self._embedded(shown).half().cpu().numpy()
        return made

    def _embedded(self, images: Float[Tensor, "tile 3 side side"]) -> Tensor:
        return embed_prefix(self._network, images.to(self._device), self.key.blocks)


Cache = ActivationCache | DenseCache
"""Where activations are kept, which also tells the task: whole images are classified, tiles segmented."""
