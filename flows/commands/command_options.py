"""What the verbs of the command line share: options, the console, an open workspace. Heavy imports stay inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from continual.domain.adapters import Task

if TYPE_CHECKING:
    from rich.console import Console

    from continual.learning import VolumeGrid
    from flows.requests import Incoming
    from flows.workplace import Workplace


class Views(StrEnum):
    """What variants of an image training looks at."""

    TURNED = "turned"
    UPRIGHT = "upright"


Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder of the project: database, artifacts, caches.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Adapter = Annotated[str, typer.Option("--adapter", "-a", help="Name of the adapter, a family of versions.")]
Labels = Annotated[
    Path | None, typer.Option(help="labels.csv of a DICOM folder: sop_instance_uid,label[,site,subject].")
]
WhichTask = Annotated[Task, typer.Option("--task", help="One class for an image, or one for every pixel.")]
MaskClasses = Annotated[
    str, typer.Option("--classes", help="Segmentation: names of the masks' numbers 1, 2, ..., comma-separated.")
]
Tile = Annotated[int, typer.Option(min=0, help="Segmentation: side of a tile in pixels; 0: the largest that fits.")]
Spacing = Annotated[
    str,
    typer.Option(
        "--spacing",
        help="Volumes: mm between voxels, right, anterior, superior: 0.5,0.5,2.5. Default: the backbone's own.",
    ),
]
VolumeSize = Annotated[
    str,
    typer.Option(
        "--volume-size",
        help="Volumes: voxels that are classified, or of a patch: 64,64,16. Default: the backbone's own.",
    ),
]
LoraBlocks = Annotated[
    int | None,
    typer.Option(min=1, help="Last blocks that carry LoRA; default 6, stages of a 3D ResNet 2, of a UNETR 8."),
]
TestTimeViews = Annotated[
    int,
    typer.Option(
        "--test-views",
        min=1,
        max=8,
        help="Views of an image whose mean is the answer (test-time augmentation); 4 take 4 times as long to answer.",
    ),
]
Steps = Annotated[
    int,
    typer.Option(min=1, help="Optimizer steps per update; with a memory, replay_mix... take three quarters of them."),
]
WhichViews = Annotated[
    Views | None,
    typer.Option(
        "--views",
        help="How training looks: turned and mirrored, too, or upright, where left and right or up and down mean "
        "something. Default: images turned, volumes upright.",
    ),
]
HERE = Path("continual-workspace")


def are_upright(views: Views | None) -> bool | None:
    """Whether views are upright; None where nobody said."""
    return None if views is None else views is Views.UPRIGHT


def make_console() -> "Console":
    """The terminal, or what stands in its place."""
    from rich.console import Console

    return Console()


def say_json(value: object) -> None:
    """A value as JSON on standard output."""
    from flows.commands.terminal import print_json

    print_json(make_console(), value)


@contextmanager
def workplace_at(workspace: Path) -> "Iterator[Workplace]":
    """The rooms of a workspace that exists."""
    from flows.workplace import open_workplace

    with open_workplace(workspace) as workplace:
        yield workplace


@contextmanager
def showing_progress(console: "Console") -> Iterator[None]:
    """Bars for everything that runs inside."""
    from flows.progress import progress_bars

    with progress_bars(console):
        yield


def prepare_workspace(workspace: Path, device: str | None, *, create: bool = True) -> None:
    """Make the workspace, or require it, and keep Prefect inside it, before anything imports Prefect."""
    from continual.settings import (
        apply_environment,
        create_workspace,
        load_settings,
        prefect_environment,
        require_workspace,
    )

    settings = load_settings(workspace, device)
    if create:
        create_workspace(settings)
    else:
        require_workspace(settings)
    apply_environment(prefect_environment(settings))
    if device:
        apply_environment({"CONTINUAL_DEVICE": device})


def changes_of(policy: Path | None) -> dict[str, Any]:
    """What a policy changes in the change plan; nothing without one."""
    from flows.commands.policy import read_policy

    return {} if policy is None else read_policy(policy)


def split_names(listed: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def three_numbers(listed: str, option: str) -> tuple[float, ...]:
    """Three comma-separated numbers, or () for an empty text; SettingsError for anything else."""
    from continual.domain.errors import SettingsError

    try:
        found = tuple(float(number) for number in listed.split(",")) if listed.strip() else ()
    except ValueError:
        found = (0.0,)
    if len(found) not in {0, 3}:
        raise SettingsError(f"{option} is {listed!r}; give three numbers, right, anterior, superior: e.g. 1,1,3")
    return found


def whole_numbers(numbers: tuple[float, ...], option: str) -> tuple[int, ...]:
    """The same as whole numbers; SettingsError where one is not."""
    from continual.domain.errors import SettingsError

    if any(number != int(number) for number in numbers):
        raise SettingsError(f"{option} is {numbers}; give whole numbers of voxels")
    return tuple(int(number) for number in numbers)


@dataclass(frozen=True, slots=True)
class Looks:
    """What an adapter looks at, as its backbone and the options say: images of a side, or volumes on a grid."""

    image_size: int
    volume: "VolumeGrid | None"
    blocks: int


def looks_of(backbone: str, backbone_name: str | None, image_size: int, spacing: str, volume_size: str) -> Looks:
    """What these options ask for, completed by what the backbone tells."""
    from continual.learning import chosen_grid, resolve_backbone, usual_blocks

    weights = resolve_backbone(backbone, backbone_name)
    size = whole_numbers(three_numbers(volume_size, "--volume-size"), "--volume-size")
    grid = chosen_grid(weights, three_numbers(spacing, "--spacing"), size)
    return Looks(0 if grid else image_size, grid, usual_blocks(weights))


def read_incoming(manifest: Path, labels: Path | None, sites: list[str]) -> "Incoming":
    """Read once here, so that a faulty table or a misspelt site ends before anything is made, loaded or learnt."""
    from flows.requests import Incoming
    from flows.sources import read_source

    incoming = Incoming(str(manifest), str(labels) if labels else None)
    read_source(incoming, sites)
    return incoming
