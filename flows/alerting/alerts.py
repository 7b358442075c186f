"""What leaves the house when a drift report is filed: a Prefect event and signed webhooks, by way of the outbox.

A report and its deliveries are stored in one transaction, then sent. What could not be sent, or was cut short by a
kill, is due again later under the same id. Knows nothing of how drift is found.
"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from continual.domain.drift import DriftReport
from continual.domain.errors import ContinualError, SettingsError
from continual.settings import Settings, Webhook
from flows.alerting.prefect_events import PREFECT, Happening, emit, server_is_named
from flows.alerting.webhooks import Answer, message_body, post
from flows.progress import say
from flows.workplace import Workplace
from registry import Delivery

MOST_ATTEMPTS = 12
LONGEST_TRY = timedelta(days=7)
"""Whichever of the two comes first ends a delivery: a schedule that runs once a day makes seven attempts."""
FIRST_PAUSE = timedelta(seconds=30)
PAUSE_GROWS = 4
LONGEST_PAUSE = timedelta(hours=6)
LONGEST_ASKED_PAUSE = timedelta(days=1)
"""Of what a receiver's Retry-After asks for, as much is granted."""
JITTER = 0.25
"""A pause is longer or shorter by up to this share, so that many senders do not come back together."""
LEASE = timedelta(minutes=5)
"""How long a claimed delivery is left to its sender: longer than an attempt can take."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A way out: its name in the outbox, and one attempt at sending a report under a delivery's id."""

    name: str
    send: Callable[[str, DriftReport], Answer]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt to deliver a report; `error` is empty where it was taken."""

    delivery: str
    target: str
    report: int | None
    error: str


def file_report(workplace: Workplace, report: DriftReport, *, after: int | None = None) -> DriftReport:
    """File a report with its deliveries, which are sent when somebody asks for that; the report as filed.

    `after` is the newest report that the look knew of its site: of two looks at once the first one filed counts.
    """
    targets = [channel.name for channel in channels(workplace.settings)]
    return workplace.registry.drift.add(report, workplace.actor, targets, after=after)


def send_after_look(workplace: Workplace) -> None:
    """Send what is due, for about as long as a receiver may take to answer; a look never fails on it."""
    try:
        attempts = send_due(workplace, workplace.settings.webhook_timeout_s)
    except ContinualError as error:
        say(f"alerts wait in the outbox: {error}")
        return
    for attempt in attempts:
        if attempt.error:
            say(f"alert of report {attempt.report} to {attempt.target}: {attempt.error}; `continual alerts list`")


def send_due(workplace: Workplace, patience_s: float | None = None) -> list[Attempt]:
    """Send what is due on all channels side by side; no new attempt begins after `patience_s` (None: no end)."""
    stop = None if patience_s is None else time.monotonic() + patience_s
    ways = channels(workplace.settings)
    attempts: list[Attempt] = []
    if ways:
        with ThreadPoolExecutor(len(ways)) as pool:
            # Prefect's settings live in the context, which threads do not inherit.
            running = [pool.submit(copy_context().run, _send_on, workplace, way, stop) for way in ways]
            attempts = [attempt for future in running for attempt in future.result()]
    # Last: what nobody had come to send until now has its attempt, however old it is.
    spent = f"given up {LONGEST_TRY.days} days after it was queued"
    workplace.registry.deliveries.give_up(datetime.now(UTC) - LONGEST_TRY, spent)
    return attempts


def send_test(settings: Settings) -> list[Attempt]:
    """One signed message that means nothing to every webhook; SettingsError when none is named."""
    webhooks = settings.webhooks()
    if not webhooks:
        raise SettingsError("no webhook is named; set CONTINUAL_WEBHOOK_URL and CONTINUAL_WEBHOOK_SECRET")
    body = message_body("continual.test", datetime.now(UTC), {"message": "Continual can reach you."})
    attempts = []
    for webhook in webhooks:
        message = str(uuid4())
        answer = post(webhook, message, body, settings.webhook_timeout_s)
        attempts.append(Attempt(message, webhook.name, None, answer.error))
    return attempts


def channels(settings: Settings) -> list[Channel]:
    """The ways out that are named now: the Prefect server, if it has an address, and every webhook."""
    ways = [
        Channel(webhook.name, partial(_post_report, webhook, settings.webhook_timeout_s))
        for webhook in settings.webhooks()
    ]
    if server_is_named():
        ways.append(Channel(PREFECT, partial(_emit_report, settings.webhook_timeout_s)))
    return ways


def event_name(report: DriftReport) -> str:
    """What happened, as event and message call it."""
    return f"continual.drift.{report.verdict.value}"


def summary(report: DriftReport) -> dict[str, Any]:
    """The facts of a report that leave the house: numbers and names, nothing of any patient."""
    evidence = report.over_time
    return {
        "report": report.id,
        "site": report.site,
        "verdict": report.verdict.value,
        "action": report.action.value,
        "reason": report.reason,
        "adapter": report.adapter,
        "version": report.version,
        "evidence": None if evidence is None else {"value": evidence.value, "threshold": evidence.threshold},
        "links": {
            "report": f"/v1/drift-reports/{report.id}",
            "site": f"/v1/sites/{quote(report.site, safe='')}/drift",
        },
    }


def pause_after(attempts: int, asked: timedelta) -> timedelta:
    """How long to wait after so many attempts, 1 or more: four times longer each time, never shorter than asked for."""
    # The exponent is bounded, too: 4 ** 1000 is no number of seconds.
    grown = min(FIRST_PAUSE * PAUSE_GROWS ** min(attempts - 1, MOST_ATTEMPTS), LONGEST_PAUSE)
    varied = grown * secrets.SystemRandom().uniform(1 - JITTER, 1 + JITTER)
    pause: timedelta = max(varied, min(asked, LONGEST_ASKED_PAUSE))
    return pause


def _send_on(workplace: Workplace, channel: Channel, stop: float | None) -> list[Attempt]:
    """Send the channel's due deliveries, oldest first, until one fails that may do better later."""
    registry, attempts = workplace.registry, list[Attempt]()
    while stop is None or time.monotonic() < stop:
        delivery = registry.deliveries.claim(channel.name, datetime.now(UTC), LEASE)
        if delivery is None:
            break
        report = registry.drift.get(delivery.report)
        try:
            answer = channel.send(delivery.id, report)
        except Exception as error:  # noqa: BLE001 (a proxy or a client nobody foresaw; its text may hold a secret)
            answer = Answer(delivered=False, again=True, error=f"not sent ({type(error).__name__})")
        _note(workplace, delivery, answer)
        attempts.append(Attempt(delivery.id, delivery.target, delivery.report, answer.error))
        if answer.again:
            break  # whoever is away now is away for the next one, too
    return attempts


def _note(workplace: Workplace, delivery: Delivery, answer: Answer) -> None:
    deliveries, now = workplace.registry.deliveries, datetime.now(UTC)
    if answer.delivered:
        deliveries.delivered(delivery.id, now)
    elif answer.again and delivery.attempts < MOST_ATTEMPTS:
        deliveries.failed(delivery.id, answer.error, now + pause_after(delivery.attempts, answer.wait))
    else:
        deliveries.failed(delivery.id, answer.error, None)


def _post_report(webhook: Webhook, timeout_s: float, delivery: str, report: DriftReport) -> Answer:
    body = message_body(event_name(report), report.created_at or datetime.now(UTC), summary(report))
    return post(webhook, delivery, body, timeout_s)


def _emit_report(timeout_s: float, delivery: str, report: DriftReport) -> Answer:
    labels = {
        "prefect.resource.id": f"continual.site.{report.site}",
        "prefect.resource.name": report.site,
        "continual.verdict": report.verdict.value,
        "continual.action": report.action.value,
        "continual.adapter": report.adapter,
    }
    at = report.created_at or datetime.now(UTC)
    return emit(delivery, Happening(event_name(report), at, labels, summary(report)), timeout_s)
