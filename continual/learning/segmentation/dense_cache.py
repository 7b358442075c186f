"""What caches of tiles share, of images and of volumes: pictures, masks and features by digest, whole files, bounded.

What was deleted for want of room is computed again when it is read. Knows numpy files; knows nothing of databases:
pictures and masks come from functions it is given.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from continual.domain.errors import StreamError
from continual.domain.samples import IGNORED, Sample
from continual.learning.activations import (
    READ_ERRORS,
    ActivationKey,
    CachePlace,
    Picture,
    PixelSource,
    Progress,
    as_file,
)
from continual.learning.cache_bound import CacheBound
from continual.learning.cached_files import FEATURES, file_of, kinds_of
from continual.learning.views import at_shape
from continual.learning.whole_files import write_whole

PICTURE = "pixels"
"""What the file of an image's own pixels, or of a volume's voxels, is called."""
MaskSource = Callable[[Sample], UInt8[np.ndarray, "*position"]]
"""A sample's mask as it was sent: class numbers, 0 the background, 255 outside the field of view."""


@dataclass(frozen=True, slots=True)
class DensePlace:
    """Where a cache of tiles lies, and how its folder's name ends: by what its files depend on besides the key."""

    place: CachePlace
    ending: str


class DenseCache(ABC):
    """Tiles of images by digest; `fill` computes what is missing. A corrected mask is a file of its own.

    A view's number tells which tile it shows and in which variant; variant 0 is the plain tile.
    """

    def __init__(self, place: DensePlace, key: ActivationKey, mask_of: MaskSource) -> None:
        self.key = key
        self._folder = place.place.cache / f"{key.folder()}-{place.ending}"
        self._bound = CacheBound(place.place.cache, place.place.limit_bytes)
        self._asked: dict[str, tuple[Sample, PixelSource]] = {}
        self._mask_of = mask_of

    @property
    @abstractmethod
    def tile(self) -> int | tuple[int, ...]:
        """Side of a tile, or all sides of a patch."""

    @abstractmethod
    def view(self, digest: str, tile: int, variant: int) -> int:
        """Number of the view that shows a tile of an image in a variant."""

    @abstractmethod
    def inputs(self, digest: str, view: int) -> tuple[Tensor, ...]:
        """What a network is given of one view of one tile."""

    @abstractmethod
    def whole(self, digest: str) -> Any:
        """What a network's `whole_scores` is given of an image."""

    @abstractmethod
    def mask(self, sample: Sample, view: int) -> UInt8[np.ndarray, "*position"]:
        """The mask of one view of one tile, at the cache's own resolution."""

    @abstractmethod
    def _cuts(self, mask: UInt8[np.ndarray, "*position"]) -> Iterable[UInt8[np.ndarray, "*position"]]:
        """A stored mask's plain tiles in order."""

    @abstractmethod
    def _kinds(self, views: int) -> tuple[str, ...]:
        """What is computed of an image that is looked at in this many variants."""

    @abstractmethod
    def _fitted_mask(self, sample: Sample) -> UInt8[np.ndarray, "*position"]:
        """A sample's mask at the cache's own resolution."""

    @abstractmethod
    def _made(self, picture: Picture, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """What is asked for of an image, by kind."""

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

    def whole_mask(self, sample: Sample) -> UInt8[np.ndarray, "*position"]:
        """The sample's mask as it was sent, at the image's own size: what predictions are held against."""
        return self._mask_of(sample)

    def features(self, digests: Sequence[str]) -> Float[np.ndarray, "image feature"]:
        """Frozen features of whole images, each seen at the side of one tile, one row per digest in the order given."""
        return np.stack([np.array(self._read(digest, FEATURES)) for digest in digests])

    def at_own_size(self, scores: Float[Tensor, "klass *position"], *shape: int) -> Float[Tensor, "klass *own"]:
        """Scores at the cache's own resolution brought to an image's own size."""
        return at_shape(scores, shape)

    def contents(self, sample: Sample) -> Int[np.ndarray, "tile 256"]:
        """How many pixels of each class number every tile of the sample's mask holds."""
        tiles = self._cuts(self._stored_mask(sample))
        return np.stack([np.bincount(tile.ravel(), minlength=IGNORED + 1) for tile in tiles])

    def _stored_mask(self, sample: Sample) -> UInt8[np.ndarray, "*position"]:
        if sample.mask is None:
            raise StreamError("1 sample of the experience has no mask; send its mask, or leave it out")
        try:
            stored: UInt8[np.ndarray, "*position"] = np.load(self._mask_path(sample), mmap_mode="r", allow_pickle=False)
        except READ_ERRORS:
            return self._make_mask(sample)
        return stored

    def _make_mask(self, sample: Sample) -> UInt8[np.ndarray, "*position"]:
        mask = self._fitted_mask(sample)
        self._write(self._mask_path(sample), mask)
        return mask

    def _lacking(self, digest: str, views: int) -> list[str]:
        return [kind for kind in self._kinds(views) if not self._path(digest, kind).exists()]

    def _read(self, digest: str, kind: str) -> np.ndarray:
        try:
            stored: np.ndarray = np.load(self._path(digest, kind), mmap_mode="r", allow_pickle=False)
        except READ_ERRORS:
            if digest not in self._asked:
                raise
            sample, pixels_of = self._asked[digest]
            return self._compute(digest, pixels_of(sample), [kind])[kind]
        return stored

    def _compute(self, digest: str, picture: Picture, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """Whatever is asked for; written where there is room."""
        made = self._made(picture, kinds)
        for kind, values in made.items():
            self._write(self._path(digest, kind), values)
        return made

    def _write(self, path: Path, values: np.ndarray) -> None:
        data = as_file(values)
        if self._bound.admits(data.nbytes):
            # An erasure deletes what is being written of its images.
            with contextlib.suppress(FileNotFoundError):
                write_whole(path, data)

    def _path(self, digest: str, kind: str) -> Path:
        return self._folder / file_of(digest, kind)

    def _mask_path(self, sample: Sample) -> Path:
        return self._folder / file_of(sample.digest, f"mask-{str(sample.mask)[:16]}")
