"""The verbs of `continual alerts`: thin skins over the outbox. Heavy imports stay inside."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.command_options import HERE, AsJson, Workspace, make_console, say_json, workplace_at

if TYPE_CHECKING:
    from flows.alerting.alerts import Attempt

alerts_app = typer.Typer(help="Drift reports on their way outside: list, send, test.", no_args_is_help=True)


@alerts_app.command("list")
def alerts_list(
    workspace: Workspace = HERE,
    state: Annotated[str | None, typer.Option(help="waiting, retrying, delivered or given_up; default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Deliveries to show, the newest.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Deliveries with their state, newest report first."""
    with workplace_at(workspace) as workplace:
        from dataclasses import asdict

        from flows.commands.alert_tables import delivery_state, show_deliveries

        deliveries = workplace.registry.deliveries.list(delivery_state(state) if state else None, limit)
        if as_json:
            say_json([asdict(delivery) for delivery in deliveries])
        else:
            show_deliveries(make_console(), deliveries)


@alerts_app.command("send")
def alerts_send(
    workspace: Workspace = HERE,
    given_up: Annotated[bool, typer.Option("--given-up", help="Also try once more what was given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send what is due; nothing is sent twice that was taken. For cron, between looks."""
    with workplace_at(workspace) as workplace:
        from datetime import UTC, datetime

        from flows.alerting.alerts import send_due

        if given_up:
            workplace.registry.deliveries.requeue(datetime.now(UTC))
        _say(send_due(workplace), as_json=as_json)


@alerts_app.command("test")
def alerts_test(as_json: AsJson = False) -> None:
    """Send one signed test message to every webhook; ends with 2 when one does not take it."""
    from continual.domain.errors import DeliveryError
    from continual.settings import load_settings
    from flows.alerting.alerts import send_test

    attempts = send_test(load_settings())
    _say(attempts, as_json=as_json)
    failed = [f"{attempt.target} ({attempt.error})" for attempt in attempts if attempt.error]
    if failed:
        raise DeliveryError(
            f"{len(failed)} of {len(attempts)} webhooks did not take the test message: {', '.join(failed)}; check "
            "address, secret and receiver"
        )


def _say(attempts: "list[Attempt]", *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        say_json([asdict(attempt) for attempt in attempts])
        return
    console = make_console()
    for attempt in attempts:
        what = "test message" if attempt.report is None else f"report {attempt.report}"
        console.print(f"{what} to {attempt.target}: {attempt.error or 'delivered'}", highlight=False, markup=False)
    if not attempts:
        console.print("nothing is due")
