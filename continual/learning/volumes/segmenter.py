"""Segmentation of volumes: a UNETR with LoRA on its last transformer blocks and decoders, its last layer as head.

Knows patches; knows nothing of sites, files or strategies.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from continual.learning.devices import mixed_precision
from continual.learning.network import LoraShape, take_over
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.volumes.architectures import unetr_maps
from continual.learning.volumes.grid import VolumeGrid

OVERLAP = 0.25
"""Share of its side that a window shares with its neighbour where a whole volume is answered."""
WINDOWS_AT_ONCE = 4


class VolumeSegmenter(DenseNetwork):
    """Normalised patches in, class scores of every voxel out; the head is one convolution of a voxel's own features."""

    head: nn.Conv3d

    def __init__(
        self, network: nn.Module, shape: LoraShape, classes: Sequence[str], grid: VolumeGrid, seed: int = 0
    ) -> None:
        width = cast("nn.Conv3d", network.get_submodule("out.conv.conv")).in_channels
        super().__init__(network, shape, classes, seed, lambda count: nn.Conv3d(width, count, 1))
        self.grid = grid

    def forward(self, patches: Float[Tensor, "patch 1 x y z"]) -> Float[Tensor, "patch klass x y z"]:
        """Class scores of every voxel before softmax."""
        scores: Tensor = self.head(unetr_maps(self.inner, patches))
        return scores

    def from_images(self, images: Float[Tensor, "patch 1 x y z"]) -> Float[Tensor, "patch klass x y z"]:
        """Class scores of normalised patches, through the whole path from voxels to head."""
        scores: Tensor = self(images)
        return scores

    @torch.inference_mode()
    def whole_scores(self, whole: Float[Tensor, "1 a b c"]) -> Float[Tensor, "klass a b c"]:
        """Class scores of a whole volume at the adapter's spacing, by windows that overlap by a quarter, on the CPU.

        Where windows overlap, scores count by a Gaussian around each window's centre (Isensee et al. 2021).
        """
        from monai.inferers import sliding_window_inference

        device = next(self.parameters()).device

        def scored(windows: Tensor) -> Tensor:
            with mixed_precision(device):
                answer: Tensor = self(windows)
            return answer.float()

        scores = sliding_window_inference(
            whole[None].to(device),
            self.grid.size,
            WINDOWS_AT_ONCE,
            scored,
            overlap=OVERLAP,
            mode="gaussian",
            cval=float(whole.min()),
        )
        return cast("Tensor", scores)[0].cpu()

    def grow_head(self, classes: Sequence[str]) -> None:
        """Append classes that it does not have yet, in the order given; the old classes' weights stay bit for bit."""
        added = self._unknown(classes)
        if added:
            old = self.head
            self.head = nn.Conv3d(old.in_channels, old.out_channels + len(added), 1, device=old.weight.device)
            take_over(self.head, old)
            self.classes = (*self.classes, *added)
