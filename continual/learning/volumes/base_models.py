"""Base models of volumes: trained from nothing on one site's volumes, or made of a published MONAI checkpoint.

Both end in a safetensors file whose metadata names architecture, arguments and grid. Where a foundation model of the
modality exists it is the better base. Knows torch and MONAI's networks; knows nothing of sites or files.
"""

import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save
from torch import Tensor, nn

from continual.domain.adapters import Task
from continual.domain.errors import BackboneError, LearningError
from continual.domain.samples import IGNORED
from continual.learning.backbone_weights import METADATA_KEY
from continual.learning.segmentation.loss import DiceCrossEntropy
from continual.learning.volumes.architectures import (
    UNETR,
    VOLUME_ARCHITECTURES,
    check_unetr_size,
    embed_volumes,
    empty_volume_network,
    pooled,
    run_stages,
    unetr_maps,
)
from continual.learning.volumes.classifier import feature_width
from continual.learning.volumes.grid import Volume, VolumeGrid, as_input, mirrored, varied

CLASSIFIED_AT_ONCE, SEGMENTED_AT_ONCE = 16, 4
PEAK_RATE = 2e-3
VARIANTS = 8
MOST_SHIFT_VOXELS = 2
FOREGROUND_SHARE = 0.67
"""Share of patches that are cut around a voxel of a class: few of a volume's voxels are of any."""
# GroupNorm keeps no statistics of a site, and is what updates then find frozen.
SMALL_RESNET: Mapping[str, Any] = {
    "conv1_t_size": 3,
    "widen_factor": 0.25,
    "norm": ["group", {"num_groups": 8}],
}
SMALL_UNETR: Mapping[str, Any] = {
    "feature_size": 8,
    "hidden_size": 96,
    "mlp_dim": 192,
    "num_heads": 4,
    "norm_name": "instance",
}
# What MONAI builds for the published weights (Chen et al. 2019).
PUBLISHED_RESNETS: Mapping[str, Mapping[str, Any]] = {
    "resnet10": {"shortcut_type": "B", "bias_downsample": False},
    "resnet18": {"shortcut_type": "A", "bias_downsample": True},
    "resnet34": {"shortcut_type": "A", "bias_downsample": True},
    "resnet50": {"shortcut_type": "B", "bias_downsample": False},
}

Mask = UInt8[np.ndarray, "x y z"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What is to be made: an architecture at a grid, with MONAI's arguments where the usual small ones do not do."""

    architecture: str
    grid: VolumeGrid
    arguments: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.architecture not in VOLUME_ARCHITECTURES:
            raise BackboneError(
                f"no 3D architecture {self.architecture!r}; choose one of {', '.join(VOLUME_ARCHITECTURES)}"
            )
        if self.architecture == UNETR:
            check_unetr_size(self.grid.size)

    @property
    def task(self) -> Task:
        """What the architecture is for."""
        return VOLUME_ARCHITECTURES[self.architecture]

    def constructed(self, classes: int) -> dict[str, Any]:
        """Constructor arguments; a UNETR has a score for the background and for every class."""
        if self.architecture == UNETR:
            usual = SMALL_UNETR if self.arguments is None else self.arguments
            return {"img_size": list(self.grid.size), "out_channels": 1 + classes, **usual}
        return dict(SMALL_RESNET if self.arguments is None else self.arguments)


@dataclass(frozen=True, slots=True)
class BaseTraining:
    """How long a base model is trained, from which seed."""

    steps: int
    seed: int


def train_volume_classifier(
    model: BaseModel,
    volumes: Sequence[Volume],
    targets: Sequence[int],
    training: BaseTraining,
    progress: Callable[[int], None],
) -> bytes:
    """A ResNet as a safetensors file; `targets` number the classes from 0, the classifying layer is thrown away.

    Trained by AdamW on 16 volumes a step, each mirrored and moved by up to 2 voxels anew. Raises LearningError when
    there are fewer than two classes.
    """
    if len(set(targets)) < 2:
        raise LearningError(f"{len(volumes)} volumes of {len(set(targets))} class make no base model; label 2 or more")
    torch.manual_seed(training.seed)
    arguments = model.constructed(0)
    network = empty_volume_network(model.architecture, arguments)
    head = nn.Linear(feature_width(network), max(targets) + 1)
    seen = [model.grid.centred(model.grid.resampled(volume)) for volume in volumes]
    truth = torch.tensor(targets)
    # Classes weigh the same, however rare one is.
    weights = (1.0 / torch.bincount(truth).clamp(min=1).float())[truth]

    def loss() -> Tensor:
        chosen = torch.multinomial(weights, CLASSIFIED_AT_ONCE, replacement=True)
        moved = [_moved(seen[place], int(torch.randint(VARIANTS, ()))) for place in chosen.tolist()]
        maps = run_stages(network, embed_volumes(network, torch.stack(moved)), 0)
        return nn.functional.cross_entropy(head(pooled(maps)), truth[chosen], label_smoothing=0.05)

    _train(nn.ModuleList([network, head]), loss, training, progress)
    return _as_file(network, model, arguments)


def train_volume_segmenter(
    model: BaseModel,
    volumes: Sequence[tuple[Volume, Mask]],
    classes: int,
    training: BaseTraining,
    progress: Callable[[int], None],
) -> bytes:
    """A UNETR as a safetensors file, trained by AdamW on 4 patches a step, two in three around a voxel of a class.

    `classes` is the largest number in the masks that has a name. Raises LearningError without a volume.
    """
    if not volumes:
        raise LearningError("0 volumes have a mask; send masks of the site, then make the base model")
    torch.manual_seed(training.seed)
    arguments = model.constructed(classes)
    network = empty_volume_network(model.architecture, arguments)
    output = network.get_submodule("out")
    seen = [model.grid.resampled(volume) for volume, _ in volumes]
    masks = [model.grid.resampled_mask(mask, values.shape) for (_, mask), values in zip(volumes, seen, strict=True)]
    criterion = DiceCrossEntropy()
    random = np.random.default_rng(training.seed)

    def loss() -> Tensor:
        patches, answers = [], []
        for _ in range(SEGMENTED_AT_ONCE):
            place, variant = int(random.integers(len(seen))), int(random.integers(VARIANTS))
            corner = _corner(masks[place], model.grid, random)
            patch = model.grid.cut(seen[place], corner, float(seen[place].min()))
            patches.append(as_input(varied(patch, variant)))
            answer = mirrored(model.grid.cut(masks[place], corner, IGNORED), variant)
            answers.append(torch.from_numpy(np.ascontiguousarray(answer)).long())
        answer_loss: Tensor = criterion(output(unetr_maps(network, torch.stack(patches))), torch.stack(answers))
        return answer_loss

    _train(network, loss, training, progress)
    return _as_file(network, model, arguments)


def convert_checkpoint(model: BaseModel, data: bytes) -> bytes:
    """A published checkpoint of MONAI's network (`torch.save` of its weights) as a backbone's safetensors file.

    Read without unpickling anything but tensors. Prefixes that training tools put before names (`module.`) and what is
    no part of the backbone (a classifying layer, decoders of other heads) are left out. A ResNet is built as MedicalNet
    MONAI builds it for MedicalNet, a UNETR with MONAI's defaults, unless arguments say otherwise. Raises BackboneError
    when the file is no such checkpoint or weights are missing or of another shape.
    """
    state = _state_of(data)
    usual = dict(PUBLISHED_RESNETS.get(model.architecture, {}) if model.arguments is None else model.arguments)
    if model.architecture == UNETR:
        outputs = state.get("out.conv.conv.weight")
        usual = {"img_size": list(model.grid.size), "out_channels": 1 if outputs is None else len(outputs), **usual}
    network = empty_volume_network(model.architecture, usual)
    wanted = network.state_dict()
    wrong = [name for name, weight in wanted.items() if name not in state or state[name].shape != weight.shape]
    if wrong:
        raise BackboneError(
            f"{len(wrong)} of {len(wanted)} weights of {model.architecture} are missing or of another shape in the "
            f"checkpoint, first {wrong[0]!r}; name the architecture it was saved from, and its --arguments"
        )
    network.load_state_dict({name: state[name] for name in wanted})
    return _as_file(network, model, usual)


def _state_of(data: bytes) -> dict[str, Tensor]:
    try:
        read = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BackboneError(
            f"the checkpoint of {len(data)} bytes holds more than tensors, or is none; only weights are read: save its "
            "state_dict alone with torch.save"
        ) from error
    while isinstance(read, dict) and "state_dict" in read:
        read = read["state_dict"]
    if not isinstance(read, dict):
        raise BackboneError(
            f"the checkpoint holds a {type(read).__name__}, must hold weights by name; save a state_dict"
        )
    return {name.removeprefix("module."): value for name, value in read.items() if isinstance(value, Tensor)}


def _train(
    trained: nn.Module, loss: Callable[[], Tensor], training: BaseTraining, progress: Callable[[int], None]
) -> None:
    weights = list(trained.parameters())
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.01)
    # A rise of one step at least: torch's schedule divides by the length of the rise.
    rise = max(0.1, 2 / (training.steps + 1))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=training.steps + 1, pct_start=rise)
    trained.train()
    for _ in range(training.steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        progress(1)


def _moved(values: np.ndarray, variant: int) -> Tensor:
    """A volume mirrored and moved; what leaves on one side comes in on the other."""
    shifts = torch.randint(-MOST_SHIFT_VOXELS, MOST_SHIFT_VOXELS + 1, (3,)).tolist()
    return as_input(varied(values, variant)).roll(shifts, dims=(1, 2, 3))


def _corner(mask: Mask, grid: VolumeGrid, random: np.random.Generator) -> list[int]:
    """Where a patch is cut: around a voxel of a class two times in three, else anywhere in the volume."""
    wanted = random.random() < FOREGROUND_SHARE
    held = np.argwhere((mask > 0) & (mask != IGNORED) & wanted)
    at = held[random.integers(len(held))] if len(held) else random.integers(mask.shape)
    corner = []
    for place, side, count in zip(at, grid.size, mask.shape, strict=True):
        slack = count - side
        # An axis shorter than a patch is padded evenly, as it is wherever a whole volume is looked at.
        start = slack // 2 if slack <= 0 else int(np.clip(place - random.integers(side), 0, slack))
        corner.append(start)
    return corner


def _as_file(network: nn.Module, model: BaseModel, arguments: Mapping[str, Any]) -> bytes:
    state = {name: weight.detach().contiguous() for name, weight in network.state_dict().items()}
    described = {"name": model.architecture, "arguments": dict(arguments), "volume": asdict(model.grid)}
    weights_file: bytes = save(state, metadata={METADATA_KEY: json.dumps(described)})
    return weights_file
