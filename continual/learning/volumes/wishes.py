"""What somebody asks of an adapter of volumes, held against its backbone: grid, task, stages that are tuned.

Knows backbones by name and metadata; builds none.
"""

from continual.domain.adapters import Task
from continual.domain.errors import SettingsError
from continual.learning.backbone_weights import BackboneWeights
from continual.learning.network import LoraShape
from continual.learning.volumes.architectures import UNETR
from continual.learning.volumes.grid import VolumeGrid

RESNET_STAGES, UNETR_STAGES = 2, 8
"""Last stages that carry LoRA: half of a ResNet's four; a UNETR's decoders and its last four transformer blocks."""


def usual_blocks(weights: BackboneWeights) -> int:
    """How many last blocks or stages of a backbone carry LoRA where nobody says otherwise."""
    if not weights.of_volumes:
        return LoraShape().blocks
    return UNETR_STAGES if weights.name == UNETR else RESNET_STAGES


def chosen_grid(
    weights: BackboneWeights, spacing_mm: tuple[float, ...] = (), size: tuple[int, ...] = ()
) -> VolumeGrid | None:
    """The grid that is asked for, completed by the backbone's own; None for images.

    Raises SettingsError when images are to have one, or nothing tells it; LearningError when it is impossible.
    """
    if not weights.of_volumes:
        if spacing_mm or size:
            raise SettingsError(
                f"--spacing and --volume-size belong to volumes, and backbone {weights.name!r} looks at images; leave "
                "them out, or pass the backbone of a 3D network"
            )
        return None
    own = weights.grid
    if own is None and not (spacing_mm and size):
        raise SettingsError(
            f"backbone {weights.name!r} looks at volumes, and its file tells no grid; pass --spacing and --volume-size"
        )
    return VolumeGrid(spacing_mm or own.spacing_mm, size or own.size)  # type: ignore[arg-type,union-attr]


def check_kind(weights: BackboneWeights, task: Task, grid: VolumeGrid | None) -> None:
    """Raise SettingsError when an adapter's options are not those of what its backbone looks at and answers."""
    if weights.of_volumes is (grid is None):
        looks, given = ("volumes", "images") if weights.of_volumes else ("images", "volumes")
        raise SettingsError(
            f"backbone {weights.name!r} looks at {looks}, and the adapter's options are those of {given}; keep images "
            "and volumes in adapters of their own"
        )
    if task not in weights.tasks:
        wanted = weights.tasks[0].value
        raise SettingsError(f"backbone {weights.name!r} is for {wanted}, not {task.value}; pass --task {wanted}")
    if grid is None:
        return
    fixed = tuple(weights.arguments.get("img_size", grid.size))
    if fixed != grid.size:
        raise SettingsError(
            f"--volume-size is {','.join(map(str, grid.size))}, and this {weights.name} was made for patches of "
            f"{','.join(map(str, fixed))} voxels; leave --volume-size out, or make another base model"
        )
