"""Every error as RFC 9457 problem+json, in one place; knows nothing of what went wrong inside a room."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from continual.domain import errors

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[errors.ContinualError], HTTPStatus] = {
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.NotAcceptedError: HTTPStatus.CONFLICT,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.UnreadableImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.QualityError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PromptError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RegistryError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ArtifactError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.LedgerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SchemaError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.StorageFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.AdapterMismatchError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BackboneError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The nearest ancestor decides; anything else in the tree is a fault of this server: 500."""

UNEXPECTED = "The server met an unexpected error; its log has the trace. Try again, then tell its operator."


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An answer that only HTTP knows: too large, not allowed, not now. `detail` names value, limit and remedy."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        headers: Mapping[str, str] | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extension = dict(extension or {})


def status_of(error: errors.ContinualError) -> HTTPStatus:
    """HTTP status of an error: that of its nearest ancestor in `STATUS`, else 500."""
    known = (STATUS[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS)
    return next(known, HTTPStatus.INTERNAL_SERVER_ERROR)


def as_problem(error: Exception) -> Problem:
    """The problem an error is shown as; an error from outside the tree keeps its message to the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, errors.ContinualError):
        return Problem(status_of(error), str(error), extension={"error_type": type(error).__name__})
    if isinstance(error, HTTPException):
        return Problem(HTTPStatus(error.status_code), str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        # The offending input itself stays out: it may hold what nobody should see again.
        invalid = [{"where": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in error.errors()]
        detail = "; ".join(f"{each['where']}: {each['message']}" for each in invalid)
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, extension={"invalid": invalid})
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, UNEXPECTED)


async def answer_error(request: Request, error: Exception) -> Response:
    """RFC 9457 body; below /v2 it also carries `error`, the member the Open Inference Protocol demands."""
    problem = as_problem(error)
    status = problem.status
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": problem.detail}
    if request.url.path.startswith("/v2/"):
        body["error"] = problem.detail
    body.update(problem.extension)
    return Response(json.dumps(body), int(status), problem.headers, media_type=MEDIA_TYPE)


def install_problems(app: FastAPI) -> None:
    """Make `app` answer every error with problem+json."""
    for kind in (errors.ContinualError, Problem, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_error)
