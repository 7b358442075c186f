"""Frozen foundation models: found by path, local hub cache or hub, known by the SHA-256 of their weights.

Knows timm's vision transformers and MONAI's 3D networks by name; knows nothing of adapters, sites or databases.
"""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.domain.errors import BackboneError
from continual.learning.backbone_weights import LITEMEDSAM, BackboneWeights, weights_from_bytes
from continual.learning.litemedsam import build_litemedsam, litemedsam_weights
from continual.learning.volumes.architectures import VOLUME_ARCHITECTURES, empty_volume_network

NETWORK_PROBE_SECONDS = 1.5
HUB_HOST = "huggingface.co"
Network = TypeVar("Network", bound=nn.Module)


def resolve_backbone(reference: str, name: str | None = None) -> BackboneWeights:
    """Weights for `reference`: a path to a safetensors file, `litemedsam`, or a timm name in the hub cache or the hub.

    `name` is the timm architecture of a file whose metadata and shapes do not tell. Raises BackboneError, within two
    seconds where there is no network, naming what was tried.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return weights_from_bytes(path.read_bytes(), name)
    if reference == LITEMEDSAM:
        return litemedsam_weights()
    if path.suffix == ".safetensors" or len(path.parts) > 2:
        raise BackboneError(f"backbone file {path.name!r} does not exist at the path given; correct --backbone")
    return weights_from_bytes(_from_hub(reference).read_bytes(), name or reference)


def build_network(weights: BackboneWeights) -> VisionTransformer:
    """The frozen vision transformer in eval mode, float32, on the CPU, every weight loaded strictly.

    Raises BackboneError when the weights do not fit the architecture, are of a network for volumes, or it has no class
    token to classify by.
    """
    if weights.of_volumes:
        raise BackboneError(f"backbone {weights.name!r} looks at volumes, and images were given; use a vit_*")
    if weights.name == LITEMEDSAM:
        raise BackboneError(f"{LITEMEDSAM} answers with masks and does not classify; pass --task segmentation")
    return _filled(_empty_network(weights), weights)


def build_volume_network(weights: BackboneWeights) -> nn.Module:
    """The frozen network for volumes, as `build_network` gives one for images."""
    if not weights.of_volumes:
        raise BackboneError(
            f"backbone {weights.name!r} looks at images, and volumes were given; use one of "
            f"{', '.join(VOLUME_ARCHITECTURES)}, see continual backbone --help"
        )
    return _filled(empty_volume_network(weights.name, weights.arguments), weights)


def build_backbone(weights: BackboneWeights) -> nn.Module:
    """The frozen network that the weights are of: for images, for images and boxes, or for volumes."""
    if weights.of_volumes:
        return build_volume_network(weights)
    if weights.name == LITEMEDSAM:
        return build_litemedsam(weights)
    network: nn.Module = build_network(weights)
    return network


def _filled(network: Network, weights: BackboneWeights) -> Network:
    try:
        state = {key: value.float() for key, value in load(weights.data).items()}
        network.load_state_dict(state, strict=True)
    except (RuntimeError, SafetensorError) as error:
        detail = str(error).splitlines()[:3]
        raise BackboneError(
            f"backbone weights do not fit {weights.name}: {' '.join(detail)[:300]}; "
            "pass the matching architecture with --backbone-name"
        ) from error
    network.eval()
    network.requires_grad_(requires_grad=False)
    return network


def frozen_features(network: VisionTransformer, tokens: Float[Tensor, "image token width"]) -> Tensor:
    """Class token beside the mean patch token of normalised tokens, shape (image, 2 x width)."""
    prefix = network.num_prefix_tokens
    return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(dim=1)], dim=1)


def _empty_network(weights: BackboneWeights) -> VisionTransformer:
    import timm

    if not weights.arguments and not timm.is_model(weights.name):
        raise BackboneError(f"{weights.name!r} is no timm architecture; see timm.list_models('vit_*')")
    try:
        if weights.arguments:
            return VisionTransformer(**weights.arguments, num_classes=0, dynamic_img_size=True)
        # The side of the stored position grid is timm's default for the name; others are interpolated at run time.
        network = timm.create_model(weights.name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, ValueError, AssertionError) as error:
        raise BackboneError(f"no vision transformer can be built as {weights.name!r}: {error}; use a vit_*") from error
    if not isinstance(network, VisionTransformer):
        raise BackboneError(f"{weights.name!r} is not a plain vision transformer; LoRA here needs one (vit_*)")
    return network


def _from_hub(name: str) -> Path:
    import timm
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if not timm.is_model(name):
        raise BackboneError(f"backbone {name!r} is neither a file nor a timm architecture; correct --backbone")
    configuration = timm.get_pretrained_cfg(name)
    repository = configuration.hf_hub_id if configuration else None
    if not repository:
        raise BackboneError(f"timm publishes no weights for {name!r}; pass a path to a safetensors file")
    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if os.environ.get("HF_HUB_OFFLINE") == "1" or not _reachable(HUB_HOST):
        raise BackboneError(
            f"backbone {name!r} is not in the local hub cache and there is no network to fetch it; "
            "pass a path to a safetensors file, or fetch it once on a connected machine"
        )
    return Path(hf_hub_download(repository, "model.safetensors"))


def _reachable(host: str) -> bool:
    """Whether a TCP connection opens in time.

    In a thread because name resolution itself has no time limit; a daemon, so that leaving the program waits for none.
    """
    opened = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, 443), timeout=NETWORK_PROBE_SECONDS):
            opened.set()

    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(NETWORK_PROBE_SECONDS)
    return opened.is_set()
