"""Who may write, and the headers every answer carries; knows nothing of what is written."""

import hmac
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem
from api.service import service_of

ACTOR_CHARACTERS = 80

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
PAGE_SECURITY_POLICY = CONTENT_SECURITY_POLICY + "; style-src 'self' 'unsafe-inline'"
"""For the pages that draw: plotly.js and Swagger UI set style attributes, a drift report's page brings its own style
sheet; scripts stay files of our own."""

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
POLICY = b"content-security-policy"

# Only read, so that /docs offers its "Authorize" button; `writer` below decides.
_bearer = HTTPBearer(auto_error=False, description="The value of CONTINUAL_API_TOKEN")


async def writer(request: Request, _shown: Annotated[object, Depends(_bearer)] = None) -> str:
    """Name to record for a write, from `X-Actor` (default "api"); refuses a request without the right token.

    Raises Problem 403 when the service has no token at all, 401 when the request's is missing or wrong.
    """
    expected = service_of(request).options.api_token
    if not expected:
        raise Problem(
            HTTPStatus.FORBIDDEN, "This service has no API token, so it only reads; set CONTINUAL_API_TOKEN and restart"
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected.encode()):
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "The bearer token is missing or wrong; send the header Authorization: Bearer <CONTINUAL_API_TOKEN>",
            {"www-authenticate": "Bearer"},
        )
    actor = request.headers.get("x-actor", "").strip() or "api"
    if len(actor) > ACTOR_CHARACTERS or not actor.isprintable():
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"X-Actor has {len(actor)} characters, at most {ACTOR_CHARACTERS} printable ones are kept; shorten it",
        )
    return actor


class SecurityHeaders:
    """ASGI layer that adds the headers above to every response (a plain one: Starlette's base class is slow)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._policy = (POLICY, CONTENT_SECURITY_POLICY.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and dress the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                headers.extend(HEADERS)
                if not any(name == POLICY for name, _ in headers):
                    headers.append(self._policy)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, dressed)
