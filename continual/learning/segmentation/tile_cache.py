"""Cached tiles: tokens at the split per image and variant, the image's own pixels, its mask, its frozen features.

Per image about 1.0 MB at 504 pixels for pixels and mask and 1.0 MB for every variant's tokens (16 bit); nothing else is
kept, and a file is written whole or not at all. The cache is bounded, and what was deleted for want of room is computed
again when it is read. Knows numpy files and the frozen network; knows nothing of databases:
pixels and masks come from functions it is given.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

from continual.domain.errors import StreamError
from continual.domain.samples import IGNORED, Sample
from continual.learning.activations import (
    ActivationCache,
    ActivationKey,
    CachePlace,
    PixelSource,
    Progress,
    as_file,
    write_whole,
)
from continual.learning.cache_bound import CacheBound
from continual.learning.cached_files import FEATURES, file_of, kinds_of, view_kind
from continual.learning.litemedsam import Backbone
from continual.learning.network import embed_prefix, finish_features
from continual.learning.segmentation.framing import framing_of
from continual.learning.segmentation.tiles import TileGrid
from continual.learning.views import turned_as, view_of

PICTURE = "pixels"
"""What the file of an image's own pixels is called."""
MaskSource = Callable[[Sample], UInt8[np.ndarray, "height width"]]
"""A sample's mask as it was sent: class numbers, 0 the background, 255 outside the field of view."""


class TileCache:
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
        self.key = key
        self.grid = TileGrid(key.image_size, tile)
        self.framing = framing_of(network, key.image_size)
        held = place if isinstance(place, CachePlace) else CachePlace(place)
        self._folder = held.cache / f"{key.folder()}-t{tile}"
        self._bound = CacheBound(held.cache, held.limit_bytes)
        self._asked: dict[str, tuple[Sample, PixelSource]] = {}
        self._network = network.to(device)
        self._device = device
        self._mask_of = mask_of

    @property
    def prompted(self) -> bool:
        """Whether networks over it are asked with boxes."""
        return self.framing.padded

    def missing(self, samples: Iterable[Sample], views: int) -> list[Sample]:
        """The samples that lack frozen features, pixels, their mask or one of the variants 0 to `views` - 1.

        Each image and mask once; 0 views are frozen features and the mask alone.
        """
        absent = {
            (sample.digest, sample.mask): sample
            for sample in samples
            if self._lacking(sample.digest, views) or (sample.mask is not None and not self._mask_path(sample).exists())
        }
        return list(absent.values())

    def fill(self, samples: Sequence[Sample], views: int, pixels_of: PixelSource, progress: Progress) -> None:
        """Compute what `missing` names; `progress` is told how many images ended.

        What has to go for want of room is computed again, one by one, when it is read.
        """
        self._asked |= {sample.digest: (sample, pixels_of) for sample in samples}
        for sample in self.missing(samples, views):
            if sample.mask is not None and not self._mask_path(sample).exists():
                self._make_mask(sample)
            lacking = self._lacking(sample.digest, views)
            if lacking:
                self._compute(sample.digest, pixels_of(sample), lacking)
            progress(1)
        kinds = (*kinds_of(views), PICTURE)
        self._bound.used(self._path(sample.digest, kind) for sample in samples for kind in kinds)
        self._bound.used(self._mask_path(sample) for sample in samples if sample.mask is not None)

    def tokens(self, digest: str, view: int) -> Float16[np.ndarray, "token width"]:
        """Tokens at the split of one view of one tile; FileNotFoundError when `fill` has not been asked for it."""
        stored = self._read(digest, view_kind(self.grid.variant_of(view)))
        return np.array(stored[self.grid.tile_of(view)])

    def pixels(self, digest: str, view: int) -> UInt8[np.ndarray, "side side 3"]:
        """The pixels of one view of one tile."""
        stored = self._read(digest, PICTURE)
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
        return tokens, self.framing.standardised(self.pixels(digest, view), self.grid.tile)

    def features(self, digests: Sequence[str]) -> Float[np.ndarray, "image feature"]:
        """Frozen features of whole images, each seen at the side of one tile, one row per digest in the order given."""
        return np.stack([np.array(self._read(digest, FEATURES)) for digest in digests])

    def contents(self, sample: Sample) -> Int[np.ndarray, "tile 256"]:
        """How many pixels of each class number every tile of the sample's mask holds."""
        mask = self._stored_mask(sample)
        tiles = [self.grid.cut(mask, tile) for tile in range(self.grid.tiles)]
        return np.stack([np.bincount(tile.ravel(), minlength=IGNORED + 1) for tile in tiles])

    def _stored_mask(self, sample: Sample) -> UInt8[np.ndarray, "size size"]:
        if sample.mask is None:
            raise StreamError("1 sample of the experience has no mask; send its mask, or leave it out")
        try:
            stored: UInt8[np.ndarray, "size size"] = np.load(self._mask_path(sample), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return self._make_mask(sample)
        return stored

    def _make_mask(self, sample: Sample) -> UInt8[np.ndarray, "size size"]:
        mask = self.framing.mask(self._mask_of(sample))
        self._write(self._mask_path(sample), mask)
        return mask

    def _lacking(self, digest: str, views: int) -> list[str]:
        wanted = (*kinds_of(views), *([PICTURE] if views and not self.prompted else []))
        return [kind for kind in wanted if not self._path(digest, kind).exists()]

    def _read(self, digest: str, kind: str) -> np.ndarray:
        try:
            stored: np.ndarray = np.load(self._path(digest, kind), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            if digest not in self._asked:
                raise
            sample, pixels_of = self._asked[digest]
            return self._compute(digest, pixels_of(sample), [kind])[kind]
        return stored

    def _compute(
        self, digest: str, pixels: UInt8[np.ndarray, "height width 3"], kinds: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Whatever of features, pixels and variants is asked for; written where there is room."""
        side, small, made = self.grid.tile, self.framing.pixels(pixels), {}
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
                turned = [self.framing.standardised(view_of(tile, int(kind[1:])), side) for tile in tiles]
                made[kind] = self._embedded(torch.stack(turned)).half().cpu().numpy()
            self._write(self._path(digest, kind), made[kind])
        return made

    def _embedded(self, images: Float[Tensor, "tile 3 side side"]) -> Tensor:
        return embed_prefix(self._network, images.to(self._device), self.key.blocks)

    def _write(self, path: Path, values: np.ndarray) -> None:
        data = as_file(values)
        if self._bound.admits(data.nbytes):
            write_whole(path, data)

    def _path(self, digest: str, kind: str) -> Path:
        return self._folder / file_of(digest, kind)

    def _mask_path(self, sample: Sample) -> Path:
        return self._folder / file_of(sample.digest, f"mask-{str(sample.mask)[:16]}")


Cache = ActivationCache | TileCache
"""Where activations are kept, which also tells the task: whole images are classified, tiles segmented."""
