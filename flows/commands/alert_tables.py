"""Deliveries as a table for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from continual.domain.errors import SettingsError
from registry import Delivery, DeliveryState


def delivery_state(word: str) -> DeliveryState:
    """The state of that name; SettingsError for any other word."""
    try:
        return DeliveryState(word)
    except ValueError:
        known = ", ".join(state.value for state in DeliveryState)
        raise SettingsError(f"--state is {word!r}; choose one of {known}") from None


def show_deliveries(console: Console, deliveries: Sequence[Delivery]) -> None:
    """One line per delivery: what, where to, how it stands, what went wrong last."""
    if not deliveries:
        console.print("no deliveries; name a webhook or a Prefect server before the next look")
        return
    table = Table(title="Deliveries", title_justify="left")
    for heading in ("report", "target", "state", "tries", "next (UTC)", "last error"):
        table.add_column(heading, overflow="fold")
    for delivery in deliveries:
        due = delivery.next_attempt_at
        table.add_row(
            str(delivery.report),
            delivery.target,
            delivery.state.value,
            str(delivery.attempts),
            f"{due:%m-%d %H:%M}" if due else "",
            delivery.last_error or "",
        )
    console.print(table)
