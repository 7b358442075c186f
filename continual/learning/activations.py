"""Cached activations: tokens at the split and frozen features, one file per image and view, named by digests.

A file is written whole or not at all, so a killed process leaves nothing half done; a wrong key is simply never asked
for. Knows numpy files and the frozen network; knows nothing of databases: pixels come from a function it is given.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from continual.domain.samples import Sample
from continual.learning.cached_files import UNFINISHED, file_of
from continual.learning.network import PIXELS, embed_prefix, finish_features
from continual.learning.views import standardise, view_of

BATCH = 32
PixelSource = Callable[[Sample], UInt8[np.ndarray, "height width 3"]]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ActivationKey:
    """What an activation depends on besides the image: the weights, the split and the side in pixels.

    `blocks` is how many blocks lie before the split, or `PIXELS`.
    """

    backbone_digest: str
    blocks: int
    image_size: int

    def folder(self) -> str:
        """Name of the folder that holds this key's files."""
        split = "pixels" if self.blocks == PIXELS else f"b{self.blocks}"
        return f"{self.backbone_digest[:16]}-{split}-s{self.image_size}"


def write_whole(path: Path, values: np.ndarray) -> None:
    """Write an array's file whole or not at all."""
    # Through memory: numpy writes to a real file itself and says nothing when a full disk cuts it short.
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class ActivationCache:
    """Tokens (16-bit) and frozen features (32-bit) of images by digest; `fill` computes what is missing."""

    def __init__(self, folder: Path, key: ActivationKey, network: VisionTransformer, device: torch.device) -> None:
        self._folder = folder / key.folder()
        self.key = key
        self._network = network.to(device)
        self._device = device

    def missing(self, samples: Iterable[Sample], views: int) -> list[Sample]:
        """The samples that lack one of the views 0 to `views` - 1, each image once."""
        absent = {
            sample.digest: sample
            for sample in samples
            if not all(self._tokens_path(sample.digest, view).exists() for view in range(views))
        }
        return list(absent.values())

    def fill(self, samples: Iterable[Sample], views: int, pixels_of: PixelSource, progress: Progress) -> None:
        """Compute what `missing` names; `progress` is told how many images ended."""
        for batch in batches(self.missing(samples, views), BATCH):
            pixels = [pixels_of(sample) for sample in batch]
            for view in range(views):
                lacking = [place for place, s in enumerate(batch) if not self._tokens_path(s.digest, view).exists()]
                if lacking:
                    self._compute([batch[place] for place in lacking], [pixels[place] for place in lacking], view)
            progress(len(batch))

    def tokens(self, digest: str, view: int) -> Float16[np.ndarray, "token width"]:
        """Tokens at the split of one image's view; FileNotFoundError when `fill` has not been asked for it."""
        stored: Float16[np.ndarray, "token width"] = np.load(self._tokens_path(digest, view), allow_pickle=False)
        return stored

    def inputs(self, digest: str, view: int) -> tuple[Float[Tensor, "token width"]]:
        """What a network is given of one image's view."""
        return (torch.from_numpy(self.tokens(digest, view)).float(),)

    def features(self, digests: Sequence[str]) -> Float[np.ndarray, "image feature"]:
        """Frozen features of view 0, one row per digest in the order given."""
        return np.stack([np.load(self._features_path(digest), allow_pickle=False) for digest in digests])

    def _compute(self, batch: Sequence[Sample], pixels: Sequence[np.ndarray], view: int) -> None:
        images = torch.stack([standardise(view_of(image, view), self.key.image_size) for image in pixels])
        tokens = embed_prefix(self._network, images.to(self._device), self.key.blocks)
        if view == 0:
            features = finish_features(self._network, tokens, self.key.blocks).cpu().numpy()
            for sample, row in zip(batch, features, strict=True):
                write_whole(self._features_path(sample.digest), row)
        for sample, row in zip(batch, tokens.half().cpu().numpy(), strict=True):
            write_whole(self._tokens_path(sample.digest, view), row)

    def _tokens_path(self, digest: str, view: int) -> Path:
        return self._folder / file_of(digest, f"v{view}")

    def _features_path(self, digest: str) -> Path:
        return self._folder / file_of(digest, "features")


def batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """The samples in order, at most `size` at a time."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
