"""The verb `continual benchmark`; heavy imports stay inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from continual.domain.adapters import Task
from flows.commands.command_options import (
    HERE,
    Labels,
    LoraBlocks,
    MaskClasses,
    Spacing,
    Steps,
    TestTimeViews,
    Tile,
    VolumeSize,
    WhichTask,
    WhichViews,
    Workspace,
    are_upright,
    looks_of,
    make_console,
    prepare_workspace,
    read_incoming,
    showing_progress,
    split_names,
)

SEED = 20260301
OF_MASKS = "naive,replay,ewc,lwf,replay_ewc,replay_lwf,der++,joint,linear_probe"
TRAINED = f"{OF_MASKS},replay_mix,replay_mix_ewc"
ALL = f"{TRAINED},nearest_mean,random_projection"
"""With those that answer from one view of an image alone."""


def benchmark(  # noqa: PLR0913 (one parameter per option)
    manifest: Annotated[Path, typer.Option(help="CSV with path,site,label,subject; or a folder of DICOM files.")],
    sites: Annotated[str, typer.Option(help="Comma-separated, in order.")],
    backbone: Annotated[str, typer.Option(help="Path to safetensors, a timm name from the hub cache, or litemedsam.")],
    json_path: Annotated[Path, typer.Option("--json", help="Where every cell is kept; run again to go on.")],
    workspace: Workspace = HERE,
    labels: Labels = None,
    backbone_name: Annotated[str | None, typer.Option(help="timm name, when the file does not tell.")] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated; full tunes the whole backbone. Default: {ALL} (of masks without the last four)."
        ),
    ] = None,
    task: WhichTask = Task.CLASSIFICATION,
    classes: MaskClasses = "",
    tile: Tile = 0,
    spacing: Spacing = "",
    volume_size: VolumeSize = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    orders: Annotated[int, typer.Option(min=1, help="How many site orders; the second is the reverse.")] = 2,
    lora_rank: Annotated[str, typer.Option(help="One rank, or several: 2,4,8,16,32.")] = "8",
    lora_blocks: LoraBlocks = None,
    views: WhichViews = None,
    test_time_views: TestTimeViews = 1,
    peft_method: Annotated[str, typer.Option(help="One, or several: lora,dora,rslora,oft,ia3,orthogonal.")] = "lora",
    image_size: Annotated[int, typer.Option(help="Side in pixels; a multiple of the backbone's patch.")] = 224,
    steps: Steps = 200,
    replay_samples: Annotated[int, typer.Option(min=0, help="Replay memory: most samples.")] = 200,
    html: Annotated[Path | None, typer.Option(help="Also write one HTML page with heat maps and curves.")] = None,
) -> None:
    """Compare update strategies over seeds and site orders; interrupted, it goes on where it stopped."""
    _check_files({"--json": json_path, "--html": html})
    names, console = split_names(sites), make_console()
    compared = strategies or (OF_MASKS if task is Task.SEGMENTATION else ALL if test_time_views == 1 else TRAINED)
    incoming = read_incoming(manifest, labels, names)
    ranks, methods = _ranks(lora_rank), tuple(split_names(peft_method))
    prepare_workspace(workspace, None)
    with showing_progress(console):
        from continual.domain.change_plan import ChangePlan
        from continual.learning import LoraShape, training_options
        from flows.benchmarks.benchmark import BenchmarkPlan, run_benchmark
        from flows.updates.adapter_context import AdapterOptions

        looks = looks_of(backbone, backbone_name, image_size, spacing, volume_size)
        options = AdapterOptions(
            looks.image_size,
            LoraShape(blocks=lora_blocks or looks.blocks),
            training_options(task, steps, SEED, volumes=looks.volume is not None, upright=are_upright(views)),
            ChangePlan(replay_samples=replay_samples),
            task,
            tuple(split_names(classes)),
            tile,
            looks.volume,
            test_time_views,
        )
        plan = BenchmarkPlan(
            tuple(names),
            tuple(split_names(compared)),
            backbone,
            backbone_name,
            options,
            seeds,
            orders,
            ranks,
            methods,
        )
        found = run_benchmark(str(workspace), incoming, plan, json_path)
    from flows.commands.benchmark_table import show_benchmark

    show_benchmark(console, found)
    if html is not None:
        from flows.benchmarks.benchmark_page import write_page

        write_page(html, found)
        console.print(f"Written: {html}", highlight=False)


def _check_files(asked: Mapping[str, Path | None]) -> None:
    """Now, since a folder cannot be written to when the benchmark has ended."""
    from continual.domain.errors import SettingsError

    for option, path in asked.items():
        if path is not None and path.is_dir():
            raise SettingsError(f"{path} is a folder; give a file with {option}")


def _ranks(listed: str) -> tuple[int, ...]:
    from continual.domain.errors import SettingsError

    try:
        return tuple(int(rank) for rank in listed.split(","))
    except ValueError as error:
        raise SettingsError(f"--lora-rank is {listed!r}; give whole numbers, e.g. 8 or 2,4,8") from error
