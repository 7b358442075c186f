"""The command line: verbs, thin skins over the flows. Heavy imports stay inside the verbs, so `--help` is instant."""

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from continual.domain.adapters import Task
from continual.domain.errors import ContinualError
from flows.commands.alert_commands import alerts_app
from flows.commands.backbone_commands import backbone_app
from flows.commands.benchmark_command import benchmark
from flows.commands.command_options import (
    HERE,
    Adapter,
    AsJson,
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
    changes_of,
    looks_of,
    make_console,
    prepare_workspace,
    read_incoming,
    say_json,
    showing_progress,
    split_names,
    workplace_at,
)
from flows.commands.drift_commands import drift_app
from flows.commands.hold_commands import holds_app
from flows.commands.label_commands import label, performance
from flows.commands.memory_commands import memory_app
from flows.commands.quarantine_command import quarantine

if TYPE_CHECKING:
    from rich.console import Console

    from flows.updates.adapter_context import AdapterContext

app = typer.Typer(
    help=(
        "Continual keeps a medical-imaging model current.\n\n"
        "In this order: [bold]demo[/bold] shows the whole way on simulated scanners; [bold]run[/bold] does it on your "
        "images (ingest, drift check, LoRA update, gate, registered version); [bold]status[/bold] and "
        "[bold]adapters list[/bold] say where things stand; [bold]serve[/bold] answers over HTTP and shows the "
        "dashboard; [bold]deploy[/bold] puts ingest, monitor and update on a schedule."
    ),
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
adapters_app = typer.Typer(help="List, show and roll back adapter versions.", no_args_is_help=True)
app.add_typer(adapters_app, name="adapters")
app.add_typer(drift_app, name="drift")
app.add_typer(holds_app, name="holds")
app.add_typer(alerts_app, name="alerts")
app.add_typer(memory_app, name="memory")
app.add_typer(backbone_app, name="backbone")

Strategy = Annotated[
    str | None,
    typer.Option(
        help="Update strategy (naive, replay_ewc, replay_mix, random_projection ...), or auto: try those that the "
        "change plan allows, keep the cheapest that is not worse. Default: the plan's first, or replay_ewc."
    ),
]
NewClasses = Annotated[
    bool, typer.Option("--new-classes", help="Let labels the adapter never saw become classes of it.")
]


@app.command()
def demo(
    workspace: Workspace = Path("demo"),
    compare: Annotated[str, typer.Option(help="Reference strategies to show beside ours; empty for none.")] = "naive",
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the result here.")] = None,
) -> None:
    """The whole way on three SIMULATED scanners: DICOM files, base model, ingest, drift, update, gate, version."""
    console = make_console()
    prepare_workspace(workspace, None)
    with showing_progress(console):
        from flows.demo import ADAPTER, SITES, play
        from flows.update import check_references

        check_references(str(workspace), ADAPTER, split_names(compare), keep_images=True)
        outcome = play(str(workspace))
        result = _result(workspace, ADAPTER, list(SITES), compare) | {"seconds": outcome["seconds"]}
    _finish(console, result, json_path)
    console.print("\nAll images were SIMULATED; the figures say nothing about any real scanner.", style="yellow")
    console.print(f"Next:  continual serve --workspace {workspace}      then open http://127.0.0.1:8080/dashboard")
    console.print(f"       continual status --workspace {workspace}     continual drift show {SITES[1]} -w {workspace}")


@app.command()
def run(  # noqa: PLR0913 (one parameter per option)
    manifest: Annotated[Path, typer.Option(help="CSV with path,site,label,subject; or a folder of DICOM files.")],
    sites: Annotated[str, typer.Option(help="Comma-separated, in order; the first is the release site.")],
    adapter: Adapter,
    backbone: Annotated[str, typer.Option(help="Path to safetensors, a timm name from the hub cache, or litemedsam.")],
    workspace: Workspace = HERE,
    labels: Labels = None,
    backbone_name: Annotated[str | None, typer.Option(help="timm name, when the file does not tell.")] = None,
    image_size: Annotated[int, typer.Option(help="Side in pixels; a multiple of the backbone's patch.")] = 224,
    task: WhichTask = Task.CLASSIFICATION,
    classes: MaskClasses = "",
    tile: Tile = 0,
    spacing: Spacing = "",
    volume_size: VolumeSize = "",
    strategy: Strategy = None,
    allow: Annotated[
        str,
        typer.Option(
            help="Strategies the change plan allows: auto chooses among them, the first is the default. "
            "Unset: the one asked for; for auto replay_ewc,replay_mix,random_projection "
            "(of masks and volumes replay_ewc,replay_lwf)."
        ),
    ] = "",
    compare: Annotated[str, typer.Option(help="Reference strategies, e.g. naive,joint; nothing is registered.")] = "",
    steps: Steps = 200,
    lora_rank: Annotated[int, typer.Option(min=1)] = 8,
    lora_blocks: LoraBlocks = None,
    views: WhichViews = None,
    test_time_views: TestTimeViews = 1,
    peft_method: Annotated[
        str, typer.Option(help="What is tuned: lora, dora, rslora, oft, ia3 or orthogonal.")
    ] = "lora",
    replay_samples: Annotated[int, typer.Option(min=0, help="Replay memory: most samples.")] = 200,
    replay_bytes: Annotated[int, typer.Option(min=0, help="Replay memory: most bytes of what is kept; 0: any.")] = 0,
    replay_policy: Annotated[
        str, typer.Option(help="What it keeps: class_and_site_balanced, reservoir or herding.")
    ] = "class_and_site_balanced",
    keep_images: Annotated[
        bool, typer.Option("--keep-images/--no-images", help="Keep images once learnt, or only their activations.")
    ] = True,
    minimum_labelled: Annotated[
        int | None,
        typer.Option(min=1, help="Fewest labelled training samples that may carry an update; default 40, of masks 10."),
    ] = None,
    new_classes: NewClasses = False,
    margin: Annotated[float, typer.Option(help="Gate: smallest allowed lower bound on a past site.")] = -0.10,
    drop: Annotated[float, typer.Option(help="Gate: largest allowed observed loss on a past site.")] = 0.03,
    policy: Annotated[
        Path | None, typer.Option(help="TOML: a table \\[plan] with more of the change plan; it overrules the options.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 20260301,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write result.json here.")] = None,
) -> None:
    """Release on the first site, then ingest and check each later one; where it shifted learn, gate and register."""
    console = make_console()
    names = split_names(sites)
    changes = changes_of(policy)
    incoming = read_incoming(manifest, labels, names)
    prepare_workspace(workspace, device)
    with showing_progress(console):
        from continual.domain.change_plan import FEWEST_LABELLED, ChangePlan
        from continual.learning import LoraShape, training_options, usual_alpha
        from flows.requests import Release
        from flows.run import run as run_flow
        from flows.update import check_references
        from flows.updates.adapter_context import AdapterOptions
        from flows.updates.choice import plan_for

        kept = changes.get("keep_images", keep_images)
        check_references(str(workspace), adapter, split_names(compare), keep_images=kept)
        looks = looks_of(backbone, backbone_name, image_size, spacing, volume_size)
        options = AdapterOptions(
            looks.image_size,
            LoraShape(lora_rank, usual_alpha(peft_method, lora_rank), lora_blocks or looks.blocks, peft_method),
            training_options(task, steps, seed, volumes=looks.volume is not None, upright=are_upright(views)),
            ChangePlan(
                strategies=tuple(split_names(allow))
                or plan_for(strategy, task, volumes=looks.volume is not None, test_time_views=test_time_views),
                replay_samples=replay_samples,
                replay_bytes=replay_bytes,
                replay_policy=replay_policy,
                keep_images=keep_images,
                past_site_margin=margin,
                past_site_drop=drop,
                minimum_labelled=minimum_labelled or FEWEST_LABELLED[task],
                new_classes=new_classes,
                seed=seed,
            ).changed(changes),
            task,
            tuple(split_names(classes)),
            tile,
            looks.volume,
            test_time_views,
        )
        wanted = Release(adapter, backbone, backbone_name, options.as_record())
        outcome = run_flow(str(workspace), incoming, names, wanted, strategy)
        result = _result(workspace, adapter, names, compare) | {"seconds": outcome["seconds"]}
    _finish(console, result, json_path)
    console.print(f"Next:  continual serve --workspace {workspace}      then open http://127.0.0.1:8080/dashboard")


@app.command()
def ingest(
    manifest: Annotated[Path, typer.Option(help="CSV with path,site,label,subject; or a folder of DICOM files.")],
    workspace: Workspace = HERE,
    labels: Labels = None,
    sites: Annotated[str, typer.Option(help="Comma-separated; default: all in the manifest.")] = "",
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="Hold back labels this adapter never saw.")
    ] = None,
    new_classes: NewClasses = False,
) -> None:
    """Take in files: read, quality gate, de-identify, store once. Running it again stores nothing twice."""
    console = make_console()
    names = split_names(sites)
    incoming = read_incoming(manifest, labels, names)
    prepare_workspace(workspace, None)
    with showing_progress(console):
        from flows.ingest import ingest as ingest_flow
        from flows.ingest import intake_line

        summaries = ingest_flow(
            str(workspace), incoming.source, incoming.labels, names, adapter, new_classes=new_classes
        )
    for summary in summaries:
        console.print(intake_line(summary), highlight=False)


@app.command()
def monitor(
    adapter: Adapter,
    workspace: Workspace = HERE,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
) -> None:
    """Look for drift in what arrived since the last look, and file a report.

    By hand a window of the change plan's fewest subjects is looked at; the scheduled flow waits for a whole one.
    """
    console = make_console()
    prepare_workspace(workspace, None, create=False)
    with showing_progress(console):
        from flows.monitor import monitor as monitor_flow

        verdicts = monitor_flow(str(workspace), adapter, site, now=True)
    if not verdicts:
        console.print("nothing new since the champion was released, or too little for a look")


@app.command()
def update(
    adapter: Adapter,
    workspace: Workspace = HERE,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
    strategy: Strategy = None,
    new_classes: NewClasses = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
) -> None:
    """Look, then learn what the verdict says must be learnt; the gate decides what becomes champion."""
    console = make_console()
    prepare_workspace(workspace, device, create=False)
    with showing_progress(console):
        from flows.update import update as update_flow

        update_flow(str(workspace), adapter, site, strategy, new_classes=new_classes, now=True)


@app.command()
def serve(
    workspace: Workspace = HERE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
) -> None:
    """Answer over HTTP: current version, files, predictions, drift, dashboard. Stop with Ctrl-C."""
    import os

    # The faces never import each other: the server is a program of its own.
    arguments = ["--workspace", str(workspace), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "api.server", *arguments])  # noqa: S606 (fixed program)


@app.command()
def status(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Where things stand: sites, samples, last verdicts, champions."""
    with workplace_at(workspace) as workplace:
        from flows.commands.overview import overview, show_overview

        found = overview(workplace)
        if as_json:
            say_json(found)
        else:
            show_overview(make_console(), found)


@adapters_app.command("list")
def adapters_list(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Every adapter with its champion."""
    with workplace_at(workspace) as workplace:
        from flows.commands.overview import adapter_rows, show_adapters

        rows = adapter_rows(workplace)
        if as_json:
            say_json(rows)
        else:
            show_adapters(make_console(), rows)


@adapters_app.command("show")
def adapters_show(adapter: str, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """One adapter's versions, the newest version's choice and gate, and the champion's moves."""
    with workplace_at(workspace) as workplace:
        from flows.commands.overview import adapter_detail, show_adapter

        if as_json:
            say_json(adapter_detail(workplace, adapter))
        else:
            show_adapter(make_console(), workplace, adapter)


@adapters_app.command("rollback")
def adapters_rollback(
    adapter: str,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Move the champion back to the version before it."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        move = workplace.registry.adapters.rollback(adapter, workplace.actor, reason)
        if as_json:
            say_json(asdict(move))
        else:
            make_console().print(
                f"{adapter}: champion moved from {move.from_version} to {move.to_version}", highlight=False
            )


app.command()(label)
app.command()(performance)
app.command()(quarantine)
app.command()(benchmark)


@app.command()
def deploy(
    adapter: Adapter,
    workspace: Workspace = HERE,
    cron: Annotated[str, typer.Option(help="When, in UTC: minute hour day month weekday.")] = "0 2 * * *",
    manifest: Annotated[Path | None, typer.Option(help="Where new files appear; leaves out ingest when unset.")] = None,
    labels: Labels = None,
    pool: Annotated[str | None, typer.Option(help="Register for this work pool's workers and return.")] = None,
) -> None:
    """Register ingest, monitor and update with a Prefect server, then run what is due until stopped."""
    _quiet_prefect()
    from flows.deploy import Schedule, register, serve_deployments

    schedule = Schedule(
        str(workspace), adapter, cron, str(manifest) if manifest else None, str(labels) if labels else None
    )
    if pool is None:
        serve_deployments(schedule)
        return
    for name in register(schedule, pool):
        make_console().print(f"registered {name}", highlight=False)
    make_console().print(f"Next:  prefect worker start --pool {pool}", highlight=False)


def main() -> None:
    """Run the command line; our own errors print as one line and exit with 2."""
    try:
        app()
    except ContinualError as error:
        typer.echo(f"continual: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        typer.echo("continual: no room left on the disk; free some and run the same command again", err=True)
        sys.exit(2)


def _quiet_prefect() -> None:
    from continual.settings import apply_environment

    apply_environment({"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"})


def _result(workspace: Path, adapter: str, sites: list[str], compare: str = "") -> dict[str, object]:
    from flows.benchmarks.results import reference_results, stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(workspace) as workplace:
        context: AdapterContext = context_of(workplace, adapter)
        result = stream_result(context, sites)
        wanted = split_names(compare)
        if wanted:
            result["references"] = reference_results(context, wanted, result["sites"])
    return result


def _finish(console: "Console", result: dict[str, object], json_path: Path | None) -> None:
    from flows.commands.terminal import show_result
    from flows.whole_files import write_json

    show_result(console, result)
    if json_path is not None:
        write_json(json_path, result)
        console.print(f"Written: {json_path}", highlight=False)


if __name__ == "__main__":
    main()
