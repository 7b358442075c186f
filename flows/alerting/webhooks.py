"""Signed messages over HTTP, as Standard Webhooks has them; knows nothing of drift or of when to try again.

A receiver recomputes the signature from the headers and the body as it came, so the body is made once, as bytes.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from continual.settings import Webhook

GONE = 410
AGAIN_THOUGH_REFUSED = frozenset({408, 429})
"""Refusals (4xx) that say "not now"; the others say "never"."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. `again` says whether another may do better, and not before `wait` has passed."""

    delivered: bool
    again: bool = False
    error: str = ""
    wait: timedelta = timedelta(0)


TAKEN = Answer(delivered=True)


def message_body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """A message's body: what happened, when, and the facts, as compact JSON."""
    message = {"type": kind, "timestamp": at.astimezone(UTC).isoformat(), "data": data}
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def signature(key: bytes, message: str, at: int, body: bytes) -> str:
    """`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; the time in seconds since 1970 (Standard Webhooks)."""
    signed = hmac.digest(key, f"{message}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def signed_headers(keys: Sequence[bytes], message: str, body: bytes) -> dict[str, str]:
    """The headers of one attempt, made now and signed with every key: a receiver needs to know one of them."""
    at = int(time.time())
    return {
        "content-type": "application/json",
        "user-agent": "continual",
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signature(key, message, at, body) for key in keys),
    }


def post(webhook: Webhook, message: str, body: bytes, timeout_s: float) -> Answer:
    """One attempt; `message` is the id that every attempt has. Redirects are not followed.

    No error holds the URL or what the receiver wrote: either may be a secret.
    """
    try:
        # A proxy is for other machines; the environment's certificates are for them, too.
        with (
            httpx.Client(timeout=timeout_s, trust_env=not webhook.loopback) as client,
            client.stream(
                "POST", webhook.url, content=body, headers=signed_headers(webhook.keys, message, body)
            ) as response,
        ):
            return judged(response)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Answer(delivered=False, again=True, error=f"no answer ({type(error).__name__})")


def judged(response: httpx.Response) -> Answer:
    """2xx took it; 410 and other refusals (4xx) end it; anything else may pass."""
    status = response.status_code
    if response.is_success:
        return TAKEN
    if response.is_client_error and status not in AGAIN_THOUGH_REFUSED:
        wants = "wants no more" if status == GONE else "refused"
        return Answer(delivered=False, again=False, error=f"{wants} (HTTP {status})")
    return Answer(
        delivered=False, again=True, error=f"HTTP {status}", wait=_wait(response.headers.get("retry-after", ""))
    )


def _wait(asked: str) -> timedelta:
    """What a Retry-After header asks for, as seconds or as a date; nothing where it cannot be read."""
    try:
        if asked.strip().isdecimal():
            return timedelta(seconds=min(int(asked), 10**8))
        return max(timedelta(0), parsedate_to_datetime(asked).astimezone(UTC) - datetime.now(UTC))
    except (ValueError, OverflowError):
        return timedelta(0)
