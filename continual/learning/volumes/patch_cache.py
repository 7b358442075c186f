"""Cached volumes for segmentation: each once at the adapter's spacing, normalised, in 16 bits, with mask and features.

Patches are cut from it when they are asked for, and variants made: what UNETR makes of a patch before its tuned stages
is larger than the patch by a factor of ten and more, so that reading it would cost what computing does. Knows the
frozen network and patches; what is a file and when it goes is the business of `dense_cache`.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from continual.domain.errors import LearningError
from continual.domain.samples import IGNORED, Sample
from continual.learning.activations import ActivationKey, CachePlace, Picture
from continual.learning.cached_files import FEATURES
from continual.learning.network import PIXELS
from continual.learning.segmentation.dense_cache import PICTURE, DenseCache, DensePlace, MaskSource
from continual.learning.views import at_shape
from continual.learning.volumes.architectures import unetr_features
from continual.learning.volumes.grid import (
    MOST_PATCHES,
    Volume,
    VolumeGrid,
    as_input,
    mirrored,
    varied,
)


class PatchCache(DenseCache):
    """Patches of volumes by digest; neighbours share half. Beyond a volume its least value stands, and no mask."""

    def __init__(
        self, place: CachePlace, key: ActivationKey, network: nn.Module, device: torch.device, mask_of: MaskSource
    ) -> None:
        if key.grid is None:
            raise LearningError("patches were asked for without a grid of volumes; pass --spacing and --volume-size")
        # What is kept does not depend on which stages are tuned.
        super().__init__(DensePlace(place, "patches"), replace(key, blocks=PIXELS), mask_of)
        self.grid: VolumeGrid = key.grid
        self._network = network.to(device)
        self._device = device

    @property
    def tile(self) -> tuple[int, ...]:
        """Sides of a patch in voxels."""
        return self.grid.size

    def view(self, digest: str, tile: int, variant: int) -> int:  # noqa: ARG002 (numbers leave room for any volume)
        """Number of the view that shows a patch in a variant."""
        return tile + MOST_PATCHES * variant

    def inputs(self, digest: str, view: int) -> tuple[Float[Tensor, "1 x y z"]]:
        """What a network is given of one view of one patch."""
        volume = self._read(digest, PICTURE)
        corner = self._corner(volume, view)
        # Only where a patch reaches beyond it is the whole volume read.
        beyond = 0.0 if self.grid.inside(corner, volume.shape) else float(volume.min())
        patch = self.grid.cut(volume, corner, beyond).astype(np.float32)
        return (as_input(varied(patch, view // MOST_PATCHES, upright=self.key.upright)),)

    def whole(self, digest: str) -> Float[Tensor, "1 a b c"]:
        """The volume at the adapter's spacing."""
        return as_input(self._read(digest, PICTURE))

    def mask(self, sample: Sample, view: int) -> UInt8[np.ndarray, "x y z"]:
        """The mask of one view of one patch, at the adapter's spacing."""
        mask = self._stored_mask(sample)
        patch = self.grid.cut(mask, self._corner(mask, view), IGNORED)
        return np.ascontiguousarray(mirrored(patch, 0 if self.key.upright else view // MOST_PATCHES))

    def _corner(self, values: np.ndarray, view: int) -> tuple[int, ...]:
        return self.grid.corners(values.shape)[view % MOST_PATCHES]

    def _cuts(self, mask: UInt8[np.ndarray, "a b c"]) -> Iterable[UInt8[np.ndarray, "x y z"]]:
        return (self.grid.cut(mask, corner, IGNORED) for corner in self.grid.corners(mask.shape))

    def _kinds(self, views: int) -> tuple[str, ...]:
        return (FEATURES, *([PICTURE] if views else []))

    def _fitted_mask(self, sample: Sample) -> UInt8[np.ndarray, "a b c"]:
        if sample.spacing_mm is None:
            raise LearningError("1 image was given to an adapter of volumes; release an adapter of images for it")
        mask = self._mask_of(sample)
        # The sample's spacing is its volume's, so that both get one shape.
        return self.grid.resampled_mask(mask, self.grid.shape_of(mask.shape, sample.spacing_mm))

    def _made(self, picture: Picture, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """Whatever of features and voxels is asked for."""
        resampled, made = self.grid.resampled(_as_volume(picture)), {}
        for kind in kinds:
            if kind == PICTURE:
                made[kind] = resampled.astype(np.float16)
            else:
                made[kind] = self._features(resampled)
        return made

    @torch.no_grad()
    def _features(self, resampled: Float[np.ndarray, "a b c"]) -> Float[np.ndarray, "feature"]:
        """Frozen features of the whole volume, seen at the size of one patch."""
        seen = at_shape(as_input(resampled), self.grid.size)[None].to(self._device)
        found: np.ndarray = unetr_features(self._network, seen)[0].cpu().numpy()
        return found


def _as_volume(picture: Picture) -> Volume:
    if not isinstance(picture, Volume):
        raise LearningError("1 image was given to an adapter of volumes; release an adapter of images for it")
    return picture
