"""Cached activations: tokens at the split and frozen features, one file per image and view, named by digests.

A file is written whole or not at all, so a killed process leaves nothing half done; a wrong key is never asked for. The
cache is bounded, and what was deleted for want of room is computed again when it is read. Activations of images that
are stored no more lie apart, as kept activations, and never go for want of room. Volumes are cached as images
are, feature maps in the place of tokens. Knows numpy files and the frozen network; knows nothing of
databases: pixels come from a function it is given.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.domain.errors import LearningError
from continual.domain.samples import Sample
from continual.learning.cache_bound import CacheBound
from continual.learning.cached_files import FEATURES, file_of, kinds_of, view_kind
from continual.learning.kept_files import keep_bytes, keep_files
from continual.learning.network import PIXELS, embed_prefix, finish_features
from continual.learning.stages import is_volumetric
from continual.learning.views import standardise, view_of
from continual.learning.volumes.classifier import volume_features, volume_prefix
from continual.learning.volumes.grid import Volume, VolumeGrid, as_input, varied
from continual.learning.whole_files import write_whole

BATCH = 32
VOLUME_BATCH = 4
Picture = UInt8[np.ndarray, "height width 3"] | Volume
"""A sample as it is stored: an image's pixels, or a volume."""
READ_ERRORS = (FileNotFoundError, EOFError, ValueError)
"""What numpy says of a file that is gone, empty or cut short."""
PixelSource = Callable[[Sample], Picture]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ActivationKey:
    """What an activation depends on besides the image: the weights, the split and the side in pixels.

    `blocks` is how many blocks lie before the split, or `PIXELS`. Volumes have a `grid`, and 0 for a side in pixels.
    `upright`, views are neither turned nor mirrored.
    """

    backbone_digest: str
    blocks: int
    image_size: int
    grid: VolumeGrid | None = None
    upright: bool = False

    def folder(self) -> str:
        """Name of the folder that holds this key's files."""
        split = "pixels" if self.blocks == PIXELS else f"b{self.blocks}"
        size = f"s{self.image_size}" if self.grid is None else self.grid.folder()
        return f"{self.backbone_digest[:16]}-{split}-{size}{'-upright' if self.upright else ''}"


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where activations lie: `cache` is safe to delete and takes at most `limit_bytes` (0: any), `kept` is not.

    `kept` holds the activations of images that are stored no more; None where there are none.
    """

    cache: Path
    kept: Path | None = None
    limit_bytes: int = 0


def as_file(values: np.ndarray) -> memoryview:
    """An array as the bytes of its file."""
    # Through memory: numpy writes to a real file itself and says nothing when a full disk cuts it short.
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getbuffer()


class ActivationCache:
    """Tokens (16-bit) and frozen features (32-bit) of images by digest; `fill` computes what is missing."""

    def __init__(self, place: CachePlace | Path, key: ActivationKey, network: nn.Module, device: torch.device) -> None:
        self._place = place if isinstance(place, CachePlace) else CachePlace(place)
        self.key = key
        self._batch = VOLUME_BATCH if is_volumetric(network) else BATCH
        self._network = network.to(device)
        self._device = device
        self._bound = CacheBound(self._place.cache, self._place.limit_bytes)
        self._asked: dict[str, tuple[Sample, PixelSource]] = {}

    def missing(self, samples: Iterable[Sample], views: int) -> list[Sample]:
        """The samples that lack frozen features or one of the views 0 to `views` - 1, each image once."""
        absent = {sample.digest: sample for sample in samples if not self.holds(sample.digest, views)}
        return list(absent.values())

    def holds(self, digest: str, views: int) -> bool:
        """Whether an image's frozen features and its first `views` views lie on the disk."""
        return all(self._found(digest, kind) is not None for kind in kinds_of(views))

    def fill(self, samples: Sequence[Sample], views: int, pixels_of: PixelSource, progress: Progress) -> None:
        """Compute what `missing` names; `progress` is told how many images ended.

        What has to go for want of room is computed again, one by one, when it is read.
        """
        self._asked |= {sample.digest: (sample, pixels_of) for sample in samples}
        for batch in batches(self.missing(samples, views), self._batch):
            pixels = [pixels_of(sample) for sample in batch]
            for view in range(max(views, 1)):
                kinds = kinds_of(views)[:2] if view == 0 else (view_kind(view),)
                lacking = [
                    place
                    for place, sample in enumerate(batch)
                    if any(self._found(sample.digest, kind) is None for kind in kinds)
                ]
                if lacking:
                    self._compute([batch[place] for place in lacking], [pixels[place] for place in lacking], view)
            progress(len(batch))
        self._bound.used(self._cached(sample.digest, kind) for sample in samples for kind in kinds_of(views))

    def tokens(self, digest: str, view: int) -> Float16[np.ndarray, "token width"]:
        """Tokens at the split of one image's view; FileNotFoundError when `fill` has not been asked for it."""
        stored: Float16[np.ndarray, "token width"] = self._read(digest, view_kind(view))
        return stored

    def inputs(self, digest: str, view: int) -> tuple[Float[Tensor, "token width"]]:
        """What a network is given of one image's view."""
        return (torch.from_numpy(self.tokens(digest, view)).float(),)

    def features(self, digests: Sequence[str]) -> Float[np.ndarray, "image feature"]:
        """Frozen features of view 0, one row per digest in the order given."""
        return np.stack([self._read(digest, FEATURES) for digest in digests])

    def sizes(self, digests: Iterable[str], views: int) -> dict[str, int]:
        """Bytes of each image's frozen features and first views by digest.

        What had to go for want of room counts as what it would be again; of what `fill` was never asked for, 0.
        """
        return {digest: sum(self._size(digest, kind) for kind in kinds_of(views)) for digest in digests}

    def keep(self, views: Mapping[str, int]) -> None:
        """Move features and views of images, by digest, to the kept activations; flushed to the disk on return.

        Raises FileNotFoundError when `fill` has not been asked for one of them.
        """
        wanted = [(digest, kind) for digest, count in views.items() for kind in kinds_of(count)]
        absent = [item for item in wanted if not self._kept(*item).exists()]
        for item in absent:
            self._read(*item)  # what cannot be read is computed again, while there is an image to do it from
        keep_files((self._cached(*item), self._kept(*item)) for item in absent)
        # What had to go for want of room in the meantime.
        for digest, kind in absent:
            if not self._kept(digest, kind).exists():
                keep_bytes(self._kept(digest, kind), as_file(self._read(digest, kind)))

    def only_features(self, digest: str) -> bool:
        """Whether nothing but frozen features is left of an image that was let go."""
        return self._kept(digest, FEATURES).exists() and self._found(digest, view_kind(0)) is None

    def _size(self, digest: str, kind: str) -> int:
        path = self._found(digest, kind)
        if path is not None:
            return path.stat().st_size
        return len(as_file(self._read(digest, kind))) if digest in self._asked else 0

    def _read(self, digest: str, kind: str) -> np.ndarray:
        path = self._found(digest, kind)
        if path is None and digest in self._asked:
            return self._computed_again(digest, kind)
        try:
            stored: np.ndarray = np.load(path or self._cached(digest, kind), allow_pickle=False)
        except READ_ERRORS as error:  # another process has just made room, or a power cut has left half a file
            if digest in self._asked:
                return self._computed_again(digest, kind)
            if path is None or isinstance(error, FileNotFoundError):
                raise
            raise LearningError(
                f"an activation file of {path.stat().st_size} bytes cannot be read: {path}; restore it from a backup, "
                "or delete it, and what can be computed again is"
            ) from error
        return stored

    def _computed_again(self, digest: str, kind: str) -> np.ndarray:
        sample, pixels_of = self._asked[digest]
        view = 0 if kind == FEATURES else int(kind[1:])
        values: np.ndarray = self._compute([sample], [pixels_of(sample)], view)[kind][0]
        return values

    def _compute(self, batch: Sequence[Sample], pixels: Sequence[Picture], view: int) -> dict[str, np.ndarray]:
        """Tokens of a view, and features with view 0, one row per sample; written where there is room."""
        images = torch.stack([_seen(picture, view, self.key) for picture in pixels]).to(self._device)
        tokens = _prefix(self._network, images, self.key.blocks)
        made = {}
        if view == 0:
            made[FEATURES] = _features(self._network, tokens, self.key.blocks).cpu().numpy()
        made[view_kind(view)] = tokens.half().cpu().numpy()
        for kind, rows in made.items():
            for sample, row in zip(batch, rows, strict=True):
                self._write(sample.digest, kind, row)
        return made

    def _write(self, digest: str, kind: str, values: np.ndarray) -> None:
        data = as_file(values)
        if self._bound.admits(data.nbytes):
            # An erasure deletes what is being written of its images.
            with contextlib.suppress(FileNotFoundError):
                write_whole(self._cached(digest, kind), data)

    def _found(self, digest: str, kind: str) -> Path | None:
        """Where a file lies; None when it lies nowhere."""
        for path in (self._cached(digest, kind), self._kept(digest, kind)):
            if path.exists():
                return path
        return None

    def _cached(self, digest: str, kind: str) -> Path:
        return self._place.cache / self.key.folder() / file_of(digest, kind)

    def _kept(self, digest: str, kind: str) -> Path:
        return (self._place.kept or self._place.cache) / self.key.folder() / file_of(digest, kind)


def batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """The samples in order, at most `size` at a time."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _seen(picture: Picture, view: int, key: ActivationKey) -> Tensor:
    """What a network is shown of a picture's view."""
    if not isinstance(picture, Volume):
        return standardise(view_of(picture, view, upright=key.upright), key.image_size)
    if key.grid is None:
        raise LearningError("1 volume was given to an adapter of images; release an adapter of volumes for it")
    return as_input(varied(key.grid.centred(key.grid.resampled(picture)), view, upright=key.upright))


def _prefix(network: nn.Module, images: Tensor, blocks: int) -> Tensor:
    if isinstance(network, VisionTransformer):
        return embed_prefix(network, images, blocks)
    return volume_prefix(network, images, blocks)


def _features(network: nn.Module, tokens: Tensor, blocks: int) -> Tensor:
    if isinstance(network, VisionTransformer):
        return finish_features(network, tokens, blocks)
    return volume_features(network, tokens, blocks)
