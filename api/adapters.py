"""Routes of adapters, versions and aliases; knows nothing of the gate's rule or of files' contents."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.current import CurrentAnswer
from api.parameters import AdapterName, AliasName, Held, Number, Writer
from api.problems import Problem
from api.schemas import (
    Adapter,
    AliasRequest,
    AliasTarget,
    RollbackRequest,
    Version,
    VersionWithGate,
    adapter_path,
)
from api.service import Service, service_of
from continual.domain.adapters import CHAMPION, AliasMove
from continual.domain.errors import NotAcceptedError, NotFoundError

LONGEST_WAIT_SECONDS = 60.0
POLL_SECONDS = 0.5

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


@router.get("/{name}/current", response_model=Version)
async def current(
    request: Request, name: AdapterName, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0.0
) -> Response:
    """The champion. With `If-None-Match` an unchanged champion answers 304; `?wait=30` holds that answer back up to
    30 seconds and gives the new champion as soon as the alias moves.
    """
    service = service_of(request)
    known = request.headers.get("if-none-match")
    answer = await service.current.answer(name)
    if wait and known is not None:
        answer = await _changed(service, request, answer, wait)
    headers = {"etag": answer.etag, "cache-control": "no-cache"}
    if known is not None and matches(known, answer.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(answer.body, headers=headers, media_type="application/json")


async def _changed(service: Service, request: Request, answer: CurrentAnswer, wait: float) -> CurrentAnswer:
    known = request.headers["if-none-match"]
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while matches(known, answer.etag) and not service.stopping.is_set():
        left = end - loop.time()
        if left <= 0 or await request.is_disconnected():
            break
        await asyncio.sleep(min(POLL_SECONDS, left))
        answer = await service.current.answer(answer.adapter)
    return answer


def matches(known: str, etag: str) -> bool:
    """Whether an If-None-Match header names this entity tag (weak comparison, RFC 9110 section 13.1.2)."""
    return known.strip() == "*" or etag in (each.strip().removeprefix("W/") for each in known.split(","))


def _view(service: Service, name: str) -> Adapter:
    held = service.registry.adapters
    path = adapter_path(name)
    return Adapter(
        name=name,
        versions=len(held.list(name)),
        aliases=dict(held.aliases(name)),
        links={
            "self": path,
            "current": f"{path}/current",
            "versions": f"{path}/versions",
            "history": f"{path}/aliases/{CHAMPION}/history",
        },
    )


def require_adapter(service: Service, name: str) -> None:
    """Raise NotFoundError unless the registry holds an adapter of this name."""
    if name not in service.registry.adapters.names():
        raise NotFoundError(f"there is no adapter {name!r}; GET /v1/adapters lists them")


def in_utc(moment: datetime, name: str) -> datetime:
    """A time that was asked for as `name`, in UTC, which it is without an offset; Problem 422 where UTC has no such."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        detail = f"{name} is {moment.isoformat()}, must be of the years 1 to 9999 in UTC; ask for another time"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error


@router.get("")
def adapters(service: Held) -> list[Adapter]:
    """Every adapter with its aliases."""
    return [_view(service, name) for name in service.registry.adapters.names()]


@router.get("/{name}")
def adapter(service: Held, name: AdapterName) -> Adapter:
    """One adapter with its aliases."""
    require_adapter(service, name)
    return _view(service, name)


@router.get("/{name}/versions")
def versions(service: Held, name: AdapterName) -> list[VersionWithGate]:
    """Every version, candidates and rejected ones included, in order of number."""
    require_adapter(service, name)
    held = sorted(service.registry.adapters.list(name), key=lambda version: version.number)
    return [VersionWithGate.of(version) for version in held]


@router.get("/{name}/versions/{number}")
def version(service: Held, name: AdapterName, number: Number) -> VersionWithGate:
    """One version with the gate's findings."""
    return VersionWithGate.of(service.registry.adapters.get(name, number))


@router.get("/{name}/aliases")
def aliases(service: Held, name: AdapterName) -> dict[str, int]:
    """Version number per alias."""
    require_adapter(service, name)
    return dict(service.registry.adapters.aliases(name))


@router.get("/{name}/aliases/{alias}")
def alias_target(service: Held, name: AdapterName, alias: AliasName, at: datetime | None = None) -> AliasTarget:
    """The version an alias points to, or pointed to at the time `?at=` (ISO 8601; without an offset it is UTC)."""
    moment = None if at is None else in_utc(at, "at")
    found = service.registry.adapters.current(name, alias=alias, at=moment)
    return AliasTarget(adapter=name, alias=alias, at=moment, version=Version.of(found))


@router.get("/{name}/aliases/{alias}/history")
def alias_history(service: Held, name: AdapterName, alias: AliasName) -> list[AliasMove]:
    """Every move of an alias: who, when, from where, to where, and why."""
    require_adapter(service, name)
    return list(service.registry.adapters.history(name, alias))


@router.put("/{name}/aliases/{alias}", responses={409: {"description": "The gate did not accept this version"}})
def move_alias(service: Held, name: AdapterName, alias: AliasName, wish: AliasRequest, actor: Writer) -> AliasMove:
    """Point an alias to an accepted version; 409 carries the gate's findings when it was not accepted."""
    held = service.registry.adapters
    try:
        return held.move_alias(name, alias, wish.version, actor, wish.reason)
    except NotAcceptedError as error:
        gate = held.get(name, wish.version).gate
        findings = [asdict(finding) for finding in gate.findings] if gate else []
        raise Problem(HTTPStatus.CONFLICT, str(error), extension={"findings": findings}) from error


@router.post("/{name}/rollback")
def rollback(service: Held, name: AdapterName, wish: RollbackRequest, actor: Writer) -> AliasMove:
    """Point the champion alias back to the champion before this one."""
    return service.registry.adapters.rollback(name, actor, wish.reason)
