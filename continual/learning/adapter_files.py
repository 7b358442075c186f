"""An adapter version's folder as bytes: PEFT's own files, the head, importance, golden outputs, record and model card.

Loading recomputes the golden outputs and refuses an adapter that does not reproduce them. Knows PEFT's format and
safetensors; knows nothing of where the bytes are kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from continual.domain.adapters import BOX_PROMPT, Task
from continual.domain.errors import AdapterMismatchError, LearningError
from continual.learning.backbone_weights import BackboneWeights
from continual.learning.backbones import build_backbone, build_network
from continual.learning.devices import full_precision
from continual.learning.model_card import model_card
from continual.learning.network import WHOLE_BACKBONE, AdaptedNetwork, LoraShape, TunedNetwork
from continual.learning.peft_methods import PEFT_METHODS, described
from continual.learning.segmentation.box_network import BoxNetwork, mask_network
from continual.learning.segmentation.dense_network import DenseNetwork
from continual.learning.segmentation.judging import BIASES
from continual.learning.segmentation.segmenting_network import SegmentingNetwork
from continual.learning.segmentation.tiles import TileGrid
from continual.learning.temperature import COLDEST, HOTTEST
from continual.learning.views import standardise
from continual.learning.volumes.architectures import VOLUME_ARCHITECTURES
from continual.learning.volumes.classifier import VolumeClassifier
from continual.learning.volumes.grid import VolumeGrid
from continual.learning.volumes.segmenter import VolumeSegmenter

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIGURATION = "adapter_config.json"
HEAD_WEIGHTS = "head.safetensors"
IMPORTANCE = "importance.safetensors"
GOLDEN_OUTPUTS = "golden.safetensors"
RECORD = "record.json"
CARD = "README.md"

JUDGED_WITH = "each mask's own box (oracle prompt)"

GOLDEN_IMAGES = 4
GOLDEN_VOLUMES = 2
GOLDEN_SIDE_PX = 64
GOLDEN_STRIDE = 8
GOLDEN_TOLERANCE = 5e-3
"""Largest difference of class scores that rounding on another machine explains."""
VolumeNetwork = VolumeClassifier | VolumeSegmenter


def write_adapter(
    network: TunedNetwork, importance: Mapping[str, Tensor], record: Mapping[str, Any]
) -> dict[str, bytes]:
    """The version's folder, file name to bytes; `record` must hold what `network_record` gives, under "network"."""
    configuration = network.peft.peft_config["default"].to_dict()
    configuration["base_model_name_or_path"] = record["network"]["backbone"]
    configuration["inference_mode"] = True
    with full_precision():
        golden = golden_scores(network, record["network"]["image_size"]).cpu().contiguous()
    adapter = {name: weight.contiguous() for name, weight in get_peft_model_state_dict(network.peft).items()}
    return {
        ADAPTER_WEIGHTS: save(_on_cpu(adapter), metadata={"format": "pt"}),
        ADAPTER_CONFIGURATION: json.dumps(configuration, indent=2, sort_keys=True, default=_plain).encode(),
        HEAD_WEIGHTS: save(_on_cpu(network.head.state_dict())),
        IMPORTANCE: save(_on_cpu(importance)),
        GOLDEN_OUTPUTS: save({"scores": golden}),
        RECORD: json.dumps(record, indent=2, sort_keys=True, allow_nan=False).encode(),
        CARD: model_card(record).encode(),
    }


def network_record(network: TunedNetwork, weights: BackboneWeights, image_size: int) -> dict[str, Any]:
    """What loading needs to rebuild the network: plain JSON. A record that names no task classifies.

    Raises LearningError for a network whose backbone itself was tuned: it is no adapter on the weights that it names.
    """
    if network.shape.method == WHOLE_BACKBONE:
        raise LearningError(
            "a network whose whole backbone was tuned cannot become a version: versions are adapters on frozen "
            f"weights, here {weights.digest[:12]}; learn with a PEFT method instead"
        )
    dense = isinstance(network, DenseNetwork)
    return {
        "task": (Task.SEGMENTATION if dense else Task.CLASSIFICATION).value,
        "backbone": weights.name,
        "backbone_digest": weights.digest,
        "image_size": image_size,
        "classes": list(network.classes),
        "lora_rank": network.shape.rank,
        "lora_alpha": network.shape.alpha,
        "lora_blocks": network.shape.blocks,
        "peft_method": network.shape.method,
        "tuned_by": described(network.shape.method, network.shape.rank),
        "temperature": network.temperature,
        "trainable_parameters": sum(weight.numel() for weight in network.trainable().values()),
        "trainable_share": network.trainable_share(),
        **(_asking(network) if isinstance(network, AdaptedNetwork) else {}),
        **({"foreground_bias": network.foreground_bias} if dense else {}),
        **({"tile": network.grid.tile} if isinstance(network, SegmentingNetwork | BoxNetwork) else {}),
        **({"volume": asdict(network.grid)} if isinstance(network, VolumeNetwork) else {}),
        **({"prompt": BOX_PROMPT, "judged_with": JUDGED_WITH} if isinstance(network, BoxNetwork) else {}),
    }


def _asking(network: AdaptedNetwork) -> dict[str, Any]:
    return {"test_time_views": network.test_time_views, "upright": network.upright}


def read_adapter(weights: BackboneWeights, files: Mapping[str, bytes], device: torch.device) -> TunedNetwork:
    """The network of a stored version, proved alive.

    A version from before there were temperatures reads as 1, one from before there were methods as LoRA. Raises
    AdapterMismatchError when the backbone is another, a file is missing, the method is not known, weights do not fit,
    temperature or foreground bias are out of bounds, or golden outputs differ.
    """
    absent = {ADAPTER_WEIGHTS, HEAD_WEIGHTS, GOLDEN_OUTPUTS, RECORD} - set(files)
    if absent:
        raise AdapterMismatchError(f"the version lacks {sorted(absent)}; restore its folder from the artifact store")
    shape = json.loads(files[RECORD])["network"]
    check_backbone(weights, shape)
    network = _untrained(weights, shape)
    network.temperature = stored_temperature(shape)
    if isinstance(network, AdaptedNetwork):
        network.test_time_views, network.upright = shape.get("test_time_views", 1), shape.get("upright", False)
    _load_weights(network, files)
    network.to(device).eval()
    _prove_alive(network, shape["image_size"], load(files[GOLDEN_OUTPUTS])["scores"])
    return network


def _prove_alive(network: TunedNetwork, image_size: int, expected: Tensor) -> None:
    try:
        with full_precision():
            check_golden(golden_scores(network, image_size), expected)
    except AdapterMismatchError:
        if next(network.parameters()).device.type != "cuda":
            raise
        # Until golden outputs were computed in full precision, a GPU wrote what it rounds.
        check_golden(golden_scores(network, image_size), expected)


def _untrained(weights: BackboneWeights, shape: Mapping[str, Any]) -> TunedNetwork:
    """The network that a record describes, before the version's weights are put into it."""
    lora = LoraShape(shape["lora_rank"], shape["lora_alpha"], shape["lora_blocks"], _method(shape))
    network: TunedNetwork
    if weights.of_volumes:
        network = volume_network(weights, lora, shape["classes"], _grid(shape))
    elif shape.get("task") == Task.SEGMENTATION:
        grid = TileGrid(shape["image_size"], shape["tile"])
        network = mask_network(build_backbone(weights), lora, shape["classes"], grid)
    else:
        network = AdaptedNetwork(build_network(weights), lora, shape["classes"])
    if isinstance(network, DenseNetwork):
        network.foreground_bias = _bias(shape)
    return network


def volume_network(
    weights: BackboneWeights, lora: LoraShape, classes: Sequence[str], grid: VolumeGrid, seed: int = 0
) -> VolumeNetwork:
    """An untrained adapter of volumes on this backbone, whose architecture tells the task."""
    build = VolumeSegmenter if VOLUME_ARCHITECTURES[weights.name] is Task.SEGMENTATION else VolumeClassifier
    return build(build_backbone(weights), lora, classes, grid, seed)


def read_importance(files: Mapping[str, bytes], device: torch.device) -> dict[str, Tensor]:
    """The stored importance of each trainable weight; empty where the version has none."""
    return {name: value.to(device) for name, value in load(files[IMPORTANCE]).items()} if IMPORTANCE in files else {}


@torch.inference_mode()
def golden_scores(network: TunedNetwork, image_size: int) -> Float[Tensor, "image klass *position"]:
    """Class scores on fixed synthetic images, through the whole path from pixels to head.

    Of dense scores every eighth pixel of every eighth row, on images of one tile, or volumes of one patch: a few
    kilobytes prove as much. A box network, which takes seconds for an image, is asked about one.
    """
    network.eval()
    device = next(network.parameters()).device
    if isinstance(network, VolumeNetwork):
        made = golden_volumes(network.grid)
    elif isinstance(network, BoxNetwork):
        made = golden_images(network.grid.tile)[:1]
    else:
        made = golden_images(network.grid.tile if isinstance(network, SegmentingNetwork) else image_size)
    scores: Tensor = network.from_images(made.to(device))
    return scores[..., ::GOLDEN_STRIDE, ::GOLDEN_STRIDE] if scores.ndim > 2 else scores


def golden_images(image_size: int) -> Float[Tensor, "image 3 side side"]:
    """Smooth colour fields of known frequencies, standardised: made, not taken, so no patient's image is kept."""
    across = np.linspace(0, 2 * np.pi, GOLDEN_SIDE_PX)
    fields = []
    for number in range(1, GOLDEN_IMAGES + 1):
        waves = [np.outer(np.sin(number * across + shift), np.cos((number + 1) * across)) for shift in (0, 1, 2)]
        fields.append(((np.stack(waves, axis=2) + 1) * 127.5).astype(np.uint8))
    return torch.stack([standardise(pixels, image_size) for pixels in fields])


def golden_volumes(grid: VolumeGrid) -> Float[Tensor, "volume 1 x y z"]:
    """Smooth waves of known frequencies along each axis, of mean 0: made, not taken."""
    x, y, z = (torch.linspace(0, 2 * torch.pi, side) for side in grid.size)
    return torch.stack(
        [
            torch.einsum("x,y,z->xyz", torch.sin(number * x), torch.cos((number + 1) * y), torch.sin(number + z))[None]
            for number in range(1, GOLDEN_VOLUMES + 1)
        ]
    )


def check_backbone(weights: BackboneWeights, shape: Mapping[str, Any]) -> None:
    """Raise AdapterMismatchError when a record's network stands on another backbone than these weights."""
    if shape["backbone_digest"] != weights.digest:
        raise AdapterMismatchError(
            f"the version was trained on backbone {shape['backbone_digest'][:12]}, not {weights.digest[:12]}; "
            "load the backbone it names"
        )


def _method(shape: Mapping[str, Any]) -> str:
    found = shape.get("peft_method", "lora")
    if found not in PEFT_METHODS:
        raise AdapterMismatchError(
            f"the version's PEFT method is {found!r}, this release knows {', '.join(PEFT_METHODS)}; "
            f"restore its {RECORD}, or use the release that wrote it"
        )
    return str(found)


def stored_temperature(shape: Mapping[str, Any]) -> float:
    """The temperature in a record's network, 1 where there is none; AdapterMismatchError when it is out of bounds."""
    found = shape.get("temperature", 1.0)
    if not isinstance(found, int | float) or not COLDEST <= found <= HOTTEST:
        raise AdapterMismatchError(
            f"the version's temperature is {found!r}, must lie between {COLDEST} and {HOTTEST}; restore its {RECORD}"
        )
    return float(found)


def _grid(shape: Mapping[str, Any]) -> VolumeGrid:
    try:
        return VolumeGrid.from_record(shape["volume"])
    except (LearningError, LookupError, TypeError) as error:
        raise AdapterMismatchError(
            f"the version's volumes are described as {shape.get('volume')!r}, must have a spacing in mm and a size in "
            f"voxels; restore its {RECORD}"
        ) from error


def _bias(shape: Mapping[str, Any]) -> float:
    found = shape.get("foreground_bias")
    if not isinstance(found, int | float) or not BIASES[0] <= found <= BIASES[-1]:
        raise AdapterMismatchError(
            f"the version's foreground's bias is {found!r}, must lie between {BIASES[0]} and {BIASES[-1]}; "
            f"restore its {RECORD}"
        )
    return float(found)


def _load_weights(network: TunedNetwork, files: Mapping[str, bytes]) -> None:
    try:
        outcome = set_peft_model_state_dict(network.peft, load(files[ADAPTER_WEIGHTS]))
        network.head.load_state_dict(load(files[HEAD_WEIGHTS]))
    except (RuntimeError, SafetensorError) as error:
        raise AdapterMismatchError(
            f"the version's weights do not fit {described(network.shape.method, network.shape.rank)} and "
            f"{len(network.classes)} classes: "
            f"{str(error).splitlines()[0][:200]}; restore {ADAPTER_WEIGHTS} and {HEAD_WEIGHTS}"
        ) from error
    if outcome.unexpected_keys:
        raise AdapterMismatchError(
            f"{len(outcome.unexpected_keys)} adapter weights fit no layer of the backbone, "
            f"first {outcome.unexpected_keys[0]!r}; load the backbone it was trained on"
        )


def check_golden(
    found: Float[Tensor, "image klass *position"], expected: Float[Tensor, "image klass *position"]
) -> None:
    """Raise AdapterMismatchError when recomputed golden outputs are further from the stored than rounding explains."""
    worst = float((found.cpu() - expected).abs().max())
    if not worst <= GOLDEN_TOLERANCE:
        raise AdapterMismatchError(
            f"golden outputs differ by {worst:.4g}, above {GOLDEN_TOLERANCE}: the adapter does not apply as it was "
            "trained; restore the version's files and use the library versions in its record"
        )


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
