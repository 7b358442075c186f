"""The command line: verbs, thin skins over the flows. Heavy imports stay inside the verbs, so `--help` is instant."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from continual.domain.errors import ContinualError

if TYPE_CHECKING:
    from rich.console import Console

    from flows.adapter_context import AdapterContext
    from flows.requests import Incoming
    from flows.workplace import Workplace

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
drift_app = typer.Typer(help="Read drift reports.", no_args_is_help=True)
app.add_typer(adapters_app, name="adapters")
app.add_typer(drift_app, name="drift")

Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder of the project: database, artifacts, caches.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Adapter = Annotated[str, typer.Option("--adapter", "-a", help="Name of the adapter, a family of versions.")]
Labels = Annotated[
    Path | None, typer.Option(help="labels.csv of a DICOM folder: sop_instance_uid,label[,site,subject].")
]
Strategy = Annotated[str | None, typer.Option(help="Update strategy; default: the change plan's first.")]
HERE = Path("continual-workspace")


@app.command()
def demo(
    workspace: Workspace = Path("demo"),
    compare: Annotated[str, typer.Option(help="Reference strategies to show beside ours; empty for none.")] = "naive",
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the result here.")] = None,
) -> None:
    """The whole way on three SIMULATED scanners: DICOM files, base model, ingest, drift, update, gate, version."""
    console = _console()
    _prepare(workspace, None)
    with _progress(console):
        from flows.demo import ADAPTER, SITES, play

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
    backbone: Annotated[str, typer.Option(help="Path to safetensors, or a timm name from the hub cache.")],
    workspace: Workspace = HERE,
    labels: Labels = None,
    backbone_name: Annotated[str | None, typer.Option(help="timm name, when the file does not tell.")] = None,
    image_size: Annotated[int, typer.Option(help="Side in pixels; a multiple of the backbone's patch.")] = 224,
    strategy: Strategy = None,
    compare: Annotated[str, typer.Option(help="Reference strategies, e.g. naive,joint; nothing is registered.")] = "",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps per update.")] = 120,
    lora_rank: Annotated[int, typer.Option(min=1)] = 8,
    lora_blocks: Annotated[int, typer.Option(min=1, help="Last blocks that carry LoRA.")] = 6,
    replay_samples: Annotated[int, typer.Option(min=0, help="Replay memory, in samples.")] = 200,
    minimum_labelled: Annotated[
        int, typer.Option(min=1, help="Fewest labelled training samples that may carry an update.")
    ] = 40,
    margin: Annotated[float, typer.Option(help="Gate: smallest allowed lower bound on a past site.")] = -0.05,
    seed: Annotated[int, typer.Option(min=0)] = 20260301,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write result.json here.")] = None,
) -> None:
    """Release on the first site, then ingest, check, learn, gate and register each later site."""
    console = _console()
    names = _names(sites)
    incoming = _incoming(manifest, labels, names)
    _prepare(workspace, device)
    with _progress(console):
        from continual.domain.change_plan import ChangePlan
        from continual.learning import LoraShape, TrainingOptions
        from flows.adapter_context import AdapterOptions
        from flows.requests import Release
        from flows.run import run as run_flow

        options = AdapterOptions(
            image_size,
            LoraShape(lora_rank, 2 * lora_rank, lora_blocks),
            TrainingOptions(steps=steps, seed=seed),
            ChangePlan(
                replay_samples=replay_samples, past_site_margin=margin, minimum_labelled=minimum_labelled, seed=seed
            ),
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
) -> None:
    """Take in files: read, quality gate, de-identify, store once. Running it again stores nothing twice."""
    console = _console()
    names = _names(sites)
    incoming = _incoming(manifest, labels, names)
    _prepare(workspace, None)
    with _progress(console):
        from flows.ingest import ingest as ingest_flow

        summaries = ingest_flow(str(workspace), incoming.source, incoming.labels, names, adapter)
    for summary in summaries:
        console.print(
            f"{summary.site}: {summary.new} new, {summary.duplicates} already stored, "
            f"{summary.quarantined} quarantined",
            highlight=False,
        )


@app.command()
def monitor(
    adapter: Adapter,
    workspace: Workspace = HERE,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
) -> None:
    """Look for drift in what arrived since the champion was released, and file a report."""
    console = _console()
    _prepare(workspace, None, create=False)
    with _progress(console):
        from flows.monitor import monitor as monitor_flow

        verdicts = monitor_flow(str(workspace), adapter, site)
    for name, verdict in verdicts.items():
        console.print(f"{name}: {verdict}", highlight=False)
    if not verdicts:
        console.print("nothing new since the champion was released")


@app.command()
def update(
    adapter: Adapter,
    workspace: Workspace = HERE,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
    strategy: Strategy = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
) -> None:
    """Look, then learn what the verdict says must be learnt; the gate decides what becomes champion."""
    console = _console()
    _prepare(workspace, device, create=False)
    with _progress(console):
        from flows.update import update as update_flow

        outcomes = update_flow(str(workspace), adapter, site, strategy)
    for name, outcome in outcomes.items():
        console.print(f"{name}: {outcome}", highlight=False)


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
    with _workplace(workspace) as workplace:
        from flows.overview import overview, show_overview

        found = overview(workplace)
        if as_json:
            _json(found)
        else:
            show_overview(_console(), found)


@adapters_app.command("list")
def adapters_list(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Every adapter with its champion."""
    with _workplace(workspace) as workplace:
        from flows.overview import adapter_rows, show_adapters

        rows = adapter_rows(workplace)
        if as_json:
            _json(rows)
        else:
            show_adapters(_console(), rows)


@adapters_app.command("show")
def adapters_show(adapter: str, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """One adapter's versions, the champion's gate and the alias's history."""
    with _workplace(workspace) as workplace:
        from flows.overview import adapter_detail, show_adapter

        if as_json:
            _json(adapter_detail(workplace, adapter))
        else:
            show_adapter(_console(), workplace, adapter)


@adapters_app.command("rollback")
def adapters_rollback(
    adapter: str,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Move the champion back to the version before it."""
    with _workplace(workspace) as workplace:
        from dataclasses import asdict

        move = workplace.registry.adapters.rollback(adapter, workplace.actor, reason)
        if as_json:
            _json(asdict(move))
        else:
            _console().print(
                f"{adapter}: champion moved from {move.from_version} to {move.to_version}", highlight=False
            )


@drift_app.command("show")
def drift_show(site: str, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """The last drift report of a site."""
    with _workplace(workspace) as workplace:
        from flows.overview import latest_report, report_record
        from flows.terminal import show_report

        report = latest_report(workplace, site)
        if as_json:
            _json(report_record(report))
        else:
            show_report(_console(), report)


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
        _console().print(f"registered {name}", highlight=False)
    _console().print(f"Next:  prefect worker start --pool {pool}", highlight=False)


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


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _json(value: object) -> None:
    from flows.terminal import print_json

    print_json(_console(), value)


@contextmanager
def _progress(console: "Console") -> Iterator[None]:
    from flows.progress import progress_bars

    with progress_bars(console):
        yield


@contextmanager
def _workplace(workspace: Path) -> "Iterator[Workplace]":
    from flows.workplace import open_workplace

    with open_workplace(workspace) as workplace:
        yield workplace


def _prepare(workspace: Path, device: str | None, *, create: bool = True) -> None:
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


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _incoming(manifest: Path, labels: Path | None, sites: list[str]) -> "Incoming":
    """Read once here, so that a faulty table or a misspelt site ends before anything is made, loaded or learnt."""
    from flows.requests import Incoming
    from flows.sources import read_source

    incoming = Incoming(str(manifest), str(labels) if labels else None)
    read_source(incoming, sites)
    return incoming


def _quiet_prefect() -> None:
    from continual.settings import apply_environment

    apply_environment({"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"})


def _result(workspace: Path, adapter: str, sites: list[str], compare: str = "") -> dict[str, object]:
    from flows.adapter_context import context_of
    from flows.results import reference_result, stream_result
    from flows.workplace import open_workplace

    with open_workplace(workspace) as workplace:
        context: AdapterContext = context_of(workplace, adapter)
        result = stream_result(context, sites)
        wanted = _names(compare)
        if wanted:
            result["references"] = {name: reference_result(context, name, sites) for name in wanted}
    return result


def _finish(console: "Console", result: dict[str, object], json_path: Path | None) -> None:
    from flows.terminal import show_result, write_json

    show_result(console, result)
    if json_path is not None:
        write_json(json_path, result)
        console.print(f"Written: {json_path}", highlight=False)


if __name__ == "__main__":
    main()
