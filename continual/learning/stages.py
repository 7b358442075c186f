"""The stages of a backbone from input to scores: its units of caching, of LoRA and of layer-wise rates.

A vision transformer's are its blocks, LiteMedSAM's those of its image encoder, a ResNet's its four layers, a UNETR's
its transformer blocks and then its decoders from coarse to fine. Knows modules by name; knows nothing of training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from continual.domain.errors import LearningError

UNETR_BLOCKS = 12
"""MONAI builds UNETR with as many, whatever else is asked for."""
VOLUME_STAGES: Mapping[str, tuple[str, ...]] = {
    "ResNet": tuple(f"layer{number}" for number in range(1, 5)),
    "UNETR": (
        *(f"vit.blocks.{number}" for number in range(UNETR_BLOCKS)),
        *(f"decoder{number}" for number in (5, 4, 3, 2)),
    ),
}
"""By the name of MONAI's class."""
TINY_VIT = "TinyViT"
"""The name of LiteMedSAM's image encoder's class. Its stage 0 is convolutions alone; the later ones have blocks."""


def is_volumetric(network: nn.Module) -> bool:
    """Whether a backbone looks at volumes."""
    return type(network).__name__ in VOLUME_STAGES


def stages_of(network: nn.Module) -> tuple[str, ...]:
    """Names of a backbone's stages, those nearest to the input first. LearningError for any other network."""
    if isinstance(network, VisionTransformer):
        return tuple(f"blocks.{number}" for number in range(len(network.blocks)))
    if type(network).__name__ == TINY_VIT:
        return _tiny_vit_blocks(network)
    if not is_volumetric(network):
        raise LearningError(
            f"a {type(network).__name__} has no known stages; use a vision transformer, a 3D ResNet or a UNETR"
        )
    return VOLUME_STAGES[type(network).__name__]


def _tiny_vit_blocks(encoder: nn.Module) -> tuple[str, ...]:
    stages: Any = encoder.layers
    return tuple(
        f"layers.{stage}.blocks.{block}"
        for stage in range(1, len(stages))
        for block in range(len(stages[stage].blocks))
    )


def adapted_layers(network: nn.Module, first: int) -> tuple[str, ...]:
    """Linear and 3D convolution layers in a volume backbone's stages from number `first` on."""
    return tuple(
        f"{stage}.{name}"
        for stage in stages_of(network)[first:]
        for name, layer in network.get_submodule(stage).named_modules()
        if isinstance(layer, nn.Linear | nn.Conv3d)
    )


def stage_depth(name: str, stages: Sequence[str]) -> int:
    """Depth of a trainable parameter among named stages: the head's is 0, the last stage's 1.

    Of a backbone's own weights the last norm counts with the last stage, whatever belongs to none lies below all.
    """
    for position, stage in enumerate(stages):
        if f".{stage}." in f".{name}":
            return len(stages) - position
    if not name.startswith("backbone."):
        return 0
    return 1 if name.startswith("backbone.norm.") else len(stages) + 1
