"""The verbs of `continual drift`: thin skins over what was looked at. Heavy imports stay inside."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.command_options import (
    HERE,
    Adapter,
    AsJson,
    Workspace,
    make_console,
    prepare_workspace,
    say_json,
    showing_progress,
    workplace_at,
)

OneAdapter = Annotated[str | None, typer.Option("--adapter", "-a", help="One adapter; default: all.")]

drift_app = typer.Typer(help="Read drift reports, ask for labels, replay under another policy.", no_args_is_help=True)


@drift_app.command("show")
def drift_show(
    site: str,
    workspace: Workspace = HERE,
    adapter: OneAdapter = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page for people, one file, to this path.")] = None,
) -> None:
    """The last drift report of a site: verdict, root cause, signals."""
    with workplace_at(workspace) as workplace:
        from flows.commands.overview import latest_report, report_record
        from flows.commands.terminal import show_report
        from flows.workplace import check_adapter

        check_adapter(workplace, adapter)
        report = latest_report(workplace, site, adapter)
        if as_json:
            say_json(report_record(report))
        else:
            show_report(make_console(), report)
        if html is not None:
            from flows.drift.drift_pages import write_drift_page

            write_drift_page(workplace, report, html)


@drift_app.command("list")
def drift_list(
    site: Annotated[str | None, typer.Argument(help="One site; default: all.")] = None,
    workspace: Workspace = HERE,
    adapter: OneAdapter = None,
    limit: Annotated[int, typer.Option(min=1, help="Looks to show, the newest.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Looks over time, newest first: patients compared, evidence since the promotion, verdict."""
    with workplace_at(workspace) as workplace:
        from flows.commands.overview import report_record
        from flows.commands.terminal import show_looks
        from flows.workplace import check_adapter, check_site

        reports = workplace.registry.drift.list(site, limit, adapter)
        if not reports:
            check_site(workplace, site)
            check_adapter(workplace, adapter)
        if as_json:
            say_json([report_record(report) for report in reports])
        else:
            show_looks(make_console(), reports)


@drift_app.command("cases")
def drift_cases(
    site: str,
    adapter: Adapter,
    folder: Annotated[Path, typer.Option(help="Images and labels.csv go here; they are patient data.")],
    workspace: Workspace = HERE,
    count: Annotated[int, typer.Option(min=1, help="Most cases.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Write images to label, drawn by lot, with a table to fill in for `continual label`."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.drift.label_requests import TABLE, write_cases

        cases = write_cases(workplace, adapter, site, folder, count)
        if as_json:
            say_json([asdict(case) for case in cases])
            return
        console = make_console()
        console.print(f"{len(cases)} images of {site}, drawn by lot", highlight=False)
        console.print(f"Next:  fill in the column label, then  continual label --manifest {folder / TABLE}")


@drift_app.command("watch")
def drift_watch(
    site: str,
    adapter: Adapter,
    workspace: Workspace = HERE,
    mean_run: Annotated[float, typer.Option(min=10, help="Images between two false alarms, on average.")] = 1000.0,
    as_json: AsJson = False,
) -> None:
    """Go through a site's new images one by one: at which would an alarm have come? Gross changes take a few images."""
    from rich.console import Console

    prepare_workspace(workspace, None, create=False)
    with showing_progress(Console(stderr=True)), workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.drift.watch import watch_site

        report = watch_site(workplace, adapter, site, mean_run)
    if as_json:
        say_json(asdict(report))
        return
    console = make_console()
    console.print(
        f"{site}: {len(report.alarms)} alarms in {report.images} images since version {report.version} learnt it; "
        f"{report.images / mean_run:.1f} would be false where nothing changes",
        highlight=False,
    )
    for alarm in report.alarms:
        when = alarm.arrived_at.strftime("%Y-%m-%d %H:%M UTC")
        console.print(f"image {alarm.image}, batch {alarm.batch} of {when}", highlight=False)


@drift_app.command("replay")
def drift_replay(
    policy: Annotated[Path, typer.Option(help="TOML: a table \\[plan] with what the change plan would have.")],
    workspace: Workspace = HERE,
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Default: the only one.")] = None,
    site: Annotated[str | None, typer.Option(help="One site; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """History under another policy: looks, alarms, updates and training time. Nothing is filed or learnt."""
    from rich.console import Console

    from flows.commands.policy import read_policy

    changes = read_policy(policy)
    prepare_workspace(workspace, None, create=False)
    # What long work says of itself is not part of the answer.
    with showing_progress(Console(stderr=True)), workplace_at(workspace) as workplace:
        from flows.commands.replay_table import replay_record, show_replay
        from flows.drift.replay import replay

        found = replay(workplace, adapter, site, changes)
    if as_json:
        say_json(replay_record(found))
    else:
        show_replay(make_console(), found)
