"""The verbs of `continual holds`: batches with faulty images, which nothing learns. Heavy imports stay inside."""

from typing import Annotated

import typer

from flows.commands.command_options import HERE, AsJson, Workspace, make_console, say_json, workplace_at

holds_app = typer.Typer(help="Show and release batches that are held for a data fault.", no_args_is_help=True)


@holds_app.command("list")
def holds_list(
    site: Annotated[str | None, typer.Argument(help="One site; default: all.")] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Batches with a data fault: while held, no reference, update or evaluation uses them."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.commands.terminal import show_holds
        from flows.workplace import check_site

        holds = workplace.registry.holds.list(site)
        if not holds:
            check_site(workplace, site)
        if as_json:
            say_json([asdict(hold) for hold in holds])
        else:
            show_holds(make_console(), holds)


@holds_app.command("release")
def holds_release(
    batch: Annotated[int, typer.Argument(help="Number of the batch.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger for ever, so without a name.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Use a held batch after all: its images were looked at and are sound. It is never held again."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        hold = workplace.registry.holds.release(batch, reason, workplace.actor)
        if as_json:
            say_json(asdict(hold))
        else:
            make_console().print(
                f"batch {hold.batch} of {hold.site} is released: its {hold.samples} images come into the next look",
                highlight=False,
            )
