"""Drift reports as Prefect events, which automations can act on; knows nothing of when to try again.

The event is handed to the server's API and its answer is waited for: Prefect's own worker thread would lose an event
without a word when the server is away or the process is killed. The delivery's id is the event's, so the server keeps
one of an event that came twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from flows.alerting.webhooks import TAKEN, Answer

PREFECT = "prefect"
"""The name of the target in the outbox."""


def server_is_named() -> bool:
    """Whether a Prefect server has an address; one that runs in process has no automations to tell."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


@dataclass(frozen=True, slots=True)
class Happening:
    """What an event says. `labels` are its resource's, among them `prefect.resource.id`."""

    name: str
    at: datetime
    labels: Mapping[str, str]
    payload: Mapping[str, Any]


def emit(event: str, happening: Happening, timeout_s: float) -> Answer:
    """Hand one event over, once; `event` is its id (a UUID)."""
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    made = Event.model_validate(
        {
            "id": UUID(event),
            "event": happening.name,
            "occurred": happening.at,
            "resource": dict(happening.labels),
            "payload": dict(happening.payload),
        }
    )
    waits = {"timeout": timeout_s}
    try:
        # One attempt: the outbox tries again, and the look waits.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(waits, sync_client=True) as client:
            client.request("POST", "/events", json=[made.model_dump(mode="json")])
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
        return Answer(delivered=False, again=True, error=f"the Prefect server took no event ({type(error).__name__})")
    return TAKEN
