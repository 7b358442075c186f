"""A backbone's weights: a safetensors file, its digest, and which architecture it is of, told by metadata or shapes.

Knows the format; builds nothing.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continual.domain.adapters import Task
from continual.domain.digests import sha256_bytes
from continual.domain.errors import BackboneError, LearningError
from continual.learning.volumes.architectures import VOLUME_ARCHITECTURES
from continual.learning.volumes.grid import VolumeGrid

METADATA_KEY = "continual_backbone"
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

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What adapters on it can be for."""
        if self.name == LITEMEDSAM:
            return (Task.SEGMENTATION,)
        return (VOLUME_ARCHITECTURES[self.name],) if self.of_volumes else tuple(Task)


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


def _grid(told: Mapping[str, Any] | None) -> VolumeGrid | None:
    if told is None:
        return None
    try:
        return VolumeGrid.from_record(told)
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
