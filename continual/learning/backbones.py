"""Frozen foundation models: found by path, local hub cache or hub, known by the SHA-256 of their weights.

Knows timm's vision transformers, MONAI's 3D networks by name and the safetensors format; knows nothing of adapters,
sites or databases.
"""

import json
import os
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from continual.domain.digests import sha256_bytes
from continual.domain.errors import BackboneError, LearningError
from continual.learning.volumes.architectures import VOLUME_ARCHITECTURES, empty_volume_network
from continual.learning.volumes.grid import VolumeGrid

NETWORK_PROBE_SECONDS = 1.5
HUB_HOST = "huggingface.co"
METADATA_KEY = "continual_backbone"
Network = TypeVar("Network", bound=nn.Module)
LITEMEDSAM = "litemedsam"
"""Name of the backbone that comes with an optional package, and answers boxes with masks."""
# (embedding width, depth, patch side, has layer scale) of the architectures that are told by their shapes alone.
KNOWN_SHAPES: Mapping[tuple[int, int, int, bool], str] = {
    (384, 12, 14, True): "vit_small_patch14_dinov2",
    (768, 12, 14, True): "vit_base_patch14_dinov2",
    (1024, 24, 14, True): "vit_large_patch14_dinov2",
    (192, 12, 16, False): "vit_tiny_patch16_224",
    (384, 12, 16, False): "vit_small_patch16_224",
    (768, 12, 16, False): "vit_base_patch16_224",
}


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """A backbone as bytes: `data` is a safetensors file, `name` its architecture, `digest` its SHA-256.

    The architecture is one of timm's, or of `VOLUME_ARCHITECTURES`: MONAI's networks for volumes. `arguments` are
    constructor arguments where the name alone does not tell all. A network for volumes has the `grid` it was made at.
    """

    name: str
    digest: str
    data: bytes = field(repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    grid: VolumeGrid | None = None

    @property
    def of_volumes(self) -> bool:
        """Whether it looks at volumes, not at images."""
        return self.name in VOLUME_ARCHITECTURES


def resolve_backbone(reference: str, name: str | None = None) -> BackboneWeights:
    """Weights for `reference`: a path to a safetensors file, `litemedsam`, or a timm name in the hub cache or the hub.

    `name` is the timm architecture of a file whose metadata and shapes do not tell. Raises BackboneError, within two
    seconds where there is no network, naming what was tried.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return weights_from_bytes(path.read_bytes(), name)
    if reference == LITEMEDSAM:
        from continual.learning.litemedsam import litemedsam_weights

        return litemedsam_weights()
    if path.suffix == ".safetensors" or len(path.parts) > 2:
        raise BackboneError(f"backbone file {path.name!r} does not exist at the path given; correct --backbone")
    return weights_from_bytes(_from_hub(reference).read_bytes(), name or reference)


def weights_from_bytes(data: bytes, name: str | None = None) -> BackboneWeights:
    """Read a safetensors file's header and tell its architecture by `name`, its metadata, or its shapes, in that order.

    Raises BackboneError when the bytes are not safetensors or the architecture cannot be told.
    """
    try:
        header = _header(data)
        told = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
        architecture = name or told.get("name") or _name_from_shapes(header)
        # Arguments belong to the architecture they were written with; another name asks for timm's own.
        arguments = told.get("arguments", {}) if architecture == told.get("name") else {}
        return BackboneWeights(architecture, sha256_bytes(data), data, arguments, _grid(told.get("volume")))
    except (struct.error, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise BackboneError(
            f"the backbone file of {len(data)} bytes is not safetensors; only that format is loaded, never pickle"
        ) from error


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
        from continual.learning.litemedsam import build_litemedsam

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


def _grid(told: Mapping[str, Any] | None) -> VolumeGrid | None:
    if told is None:
        return None
    try:
        return VolumeGrid(tuple(told["spacing_mm"]), tuple(told["size"]))
    except LearningError as error:
        raise BackboneError(f"the backbone file's metadata name no grid of volumes: {error}") from error


def _header(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def _name_from_shapes(header: Mapping[str, Any]) -> str:
    shapes = {key: value["shape"] for key, value in header.items() if key != "__metadata__"}
    patch = shapes.get("patch_embed.proj.weight")
    if patch is None:
        raise BackboneError("the backbone file has no patch_embed.proj.weight: it is not a timm vision transformer")
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    signature = (patch[0], depth, patch[-1], "blocks.0.ls1.gamma" in shapes)
    if signature not in KNOWN_SHAPES:
        raise BackboneError(
            f"no known architecture has width {signature[0]}, depth {depth} and patch {signature[2]}; "
            "name it with --backbone-name"
        )
    return KNOWN_SHAPES[signature]


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
