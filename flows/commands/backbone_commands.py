"""The verbs `continual backbone train` and `continual backbone convert`; heavy imports stay inside."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.command_options import (
    HERE,
    Labels,
    Workspace,
    make_console,
    prepare_workspace,
    read_incoming,
    showing_progress,
    three_numbers,
    whole_numbers,
)

if TYPE_CHECKING:
    from continual.learning import BaseModel

backbone_app = typer.Typer(
    help=(
        "Make the base model that adapters of volumes stand on. A published foundation model of your modality is the "
        "better base: [bold]convert[/bold] its checkpoint. Where there is none, [bold]train[/bold] one on the volumes "
        "of the first site."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Architecture = Annotated[
    str, typer.Option(help="resnet10, resnet18, resnet34 or resnet50 to classify volumes, unetr to segment them.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the safetensors file is written; --backbone of run.")]
GridSpacing = Annotated[str, typer.Option("--spacing", help="mm between voxels, right, anterior, superior: 1,1,3.")]
GridSize = Annotated[
    str, typer.Option("--volume-size", help="Voxels that are classified, or of a patch (unetr: multiples of 16).")
]
Arguments = Annotated[str, typer.Option(help="JSON of MONAI's constructor arguments; default: a small network.")]


@backbone_app.command("train")
def train(  # noqa: PLR0913 (one parameter per option)
    site: Annotated[str, typer.Option(help="Whose training volumes are learnt; use the release site.")],
    architecture: Architecture,
    spacing: GridSpacing,
    volume_size: GridSize,
    out: Out,
    workspace: Workspace = HERE,
    manifest: Annotated[
        Path | None, typer.Option(help="Take the site in from here first; default: what is stored already.")
    ] = None,
    labels: Labels = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 300,
    arguments: Arguments = "",
    seed: Annotated[int, typer.Option(min=0)] = 20260301,
) -> None:
    """Train a base model from nothing on one site's training volumes, then frozen for every adapter on it."""
    console = make_console()
    incoming = read_incoming(manifest, labels, [site]) if manifest else None
    prepare_workspace(workspace, None, create=manifest is not None)
    with showing_progress(console):
        from continual.learning import BaseTraining
        from flows.base_models import BaseOrder, keep_base_model, make_base_model

        model = _model(architecture, spacing, volume_size, arguments)
        order = BaseOrder(model, site, BaseTraining(steps, seed), incoming)
        digest = keep_base_model(make_base_model(str(workspace), order), out)
    console.print(f"Written: {out}  ({architecture}, SHA-256 {digest[:12]})", highlight=False)
    console.print(f"Next:  continual run --backbone {out} --task {model.task.value} --manifest ... --sites {site},...")


@backbone_app.command("convert")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="File that torch.save made of MONAI's network, weights alone.")],
    architecture: Architecture,
    spacing: GridSpacing,
    volume_size: GridSize,
    out: Out,
    arguments: Arguments = "",
) -> None:
    """Make a backbone of a published checkpoint of a MONAI network; nothing but tensors is read from it."""
    from flows.base_models import convert as converted
    from flows.base_models import keep_base_model

    model = _model(architecture, spacing, volume_size, arguments)
    digest = keep_base_model(converted(model, checkpoint), out)
    make_console().print(f"Written: {out}  ({architecture}, SHA-256 {digest[:12]})", highlight=False)


def _model(architecture: str, spacing: str, volume_size: str, arguments: str) -> "BaseModel":
    from continual.learning import BaseModel, VolumeGrid

    size = whole_numbers(three_numbers(volume_size, "--volume-size"), "--volume-size")
    grid = VolumeGrid(three_numbers(spacing, "--spacing"), size)  # type: ignore[arg-type]  # it counts them itself
    return BaseModel(architecture, grid, _arguments(arguments))


def _arguments(listed: str) -> dict[str, Any] | None:
    from continual.domain.errors import SettingsError

    if not listed:
        return None
    try:
        found = json.loads(listed)
    except ValueError as error:
        raise SettingsError(f'--arguments is {listed!r}; give JSON, e.g. {{"widen_factor": 0.5}}') from error
    if not isinstance(found, dict):
        raise SettingsError(f"--arguments is a {type(found).__name__}; give a JSON object of names and values")
    return found
