"""The verbs of `continual memory`: thin skins over `flows.updates.memory_content` and `flows.erasure`."""

import sys
from typing import Annotated

import typer

from flows.commands.command_options import HERE, Adapter, AsJson, Workspace, make_console, say_json, workplace_at

memory_app = typer.Typer(help="Show the replay memory; erase a subject from everything.", no_args_is_help=True)

FROM_STANDARD_INPUT = "-"


@memory_app.command("show")
def memory_show(
    adapter: Adapter,
    workspace: Workspace = HERE,
    samples: Annotated[bool, typer.Option("--samples", help="Also list every sample.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the champion remembers: counts and bytes per site and class, policy and capacity."""
    with workplace_at(workspace) as workplace:
        from flows.updates.memory_content import memory_view, show_memory

        view = memory_view(workplace, adapter)
        if as_json:
            say_json(view.as_record(samples))
        else:
            show_memory(make_console(), view, samples)


@memory_app.command("erase")
def memory_erase(
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger for ever, so without a name.")],
    workspace: Workspace = HERE,
    subject: Annotated[str | None, typer.Option(help="The subject's pseudonym.")] = None,
    patient_id: Annotated[
        str | None, typer.Option(help="The site's own identifier; - reads it from standard input.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="The site; needed with --patient-id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a subject's samples, images, masks, predictions, labels, activations; name the versions that learnt it."""
    with workplace_at(workspace) as workplace:
        from flows.erasure import Person, erase_person, show_erasure

        given = sys.stdin.readline() if patient_id == FROM_STANDARD_INPUT else patient_id
        report = erase_person(workplace, Person(subject, given, site), reason)
        if as_json:
            say_json(report.as_record())
        else:
            show_erasure(make_console(), report)
