"""Classification of volumes: a 3D ResNet with LoRA on the convolutions of its last stages, one linear layer as head.

Feature maps before the first tuned stage never change, so they are what the cache holds. Knows stages and feature maps;
knows nothing of sites, files or strategies.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from continual.learning.network import PIXELS, ClassifyingNetwork, LoraShape
from continual.learning.stages import stages_of
from continual.learning.volumes.architectures import embed_volumes, pooled, run_stages
from continual.learning.volumes.grid import VolumeGrid


@torch.no_grad()
def volume_prefix(network: nn.Module, volumes: Float[Tensor, "volume 1 x y z"], stages: int) -> Tensor:
    """Feature maps after the first `stages` stages of a frozen ResNet; at `PIXELS` the volumes as they are."""
    return volumes if stages == PIXELS else run_stages(network, embed_volumes(network, volumes), 0, stages)


@torch.no_grad()
def volume_features(network: nn.Module, maps: Tensor, stages: int) -> Float[Tensor, "volume feature"]:
    """Frozen features of what `volume_prefix` gave after `stages` stages: means over the last feature maps."""
    if stages == PIXELS:
        maps, stages = embed_volumes(network, maps), 0
    return pooled(run_stages(network, maps, stages))


def feature_width(network: nn.Module) -> int:
    """How many feature maps a ResNet's last stage gives."""
    convolutions = [
        layer for layer in network.get_submodule(stages_of(network)[-1]).modules() if isinstance(layer, nn.Conv3d)
    ]
    # A downsampling shortcut comes last in a block and gives as many maps as the block's last convolution.
    return max(layer.out_channels for layer in convolutions)


class VolumeClassifier(ClassifyingNetwork):
    """Feature maps at the split in, class scores (logits) out, from a head that starts at zero."""

    def __init__(
        self, network: nn.Module, shape: LoraShape, classes: Sequence[str], grid: VolumeGrid, seed: int = 0
    ) -> None:
        super().__init__(network, shape, classes, feature_width(network), seed)
        self.grid = grid

    def forward(self, maps: Tensor) -> Float[Tensor, "volume klass"]:
        """Class scores before softmax."""
        if self.split == PIXELS:
            maps = embed_volumes(self.inner, maps)
        scores: Tensor = self.head(pooled(run_stages(self.inner, maps, max(self.split, 0))))
        return scores

    def from_images(self, images: Float[Tensor, "volume 1 x y z"]) -> Float[Tensor, "volume klass"]:
        """Class scores of normalised volumes, through the whole path from voxels to head."""
        scores: Tensor = self(volume_prefix(self.inner, images, self.split))
        return scores
