"""Deployments: ingest, monitor and update on a schedule, run by a Prefect server and started from its page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import Flow, serve
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from continual.domain.errors import ServiceError, SettingsError


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is deployed: one adapter's workspace, its incoming source and a cron expression (UTC)."""

    workspace: str
    adapter: str
    cron: str
    source: str | None = None
    labels: str | None = None


def deployments(schedule: Schedule) -> list[RunnerDeployment]:
    """The three deployments, named `<flow>/<adapter>`; ingest only where there is a source to read."""
    # The learning libraries take seconds to load; whoever forgot the server hears of it before.
    from flows.ingest import ingest
    from flows.monitor import monitor
    from flows.update import update

    workspace = str(Path(schedule.workspace).absolute())
    common: dict[str, str | None] = {"workspace": workspace, "adapter": schedule.adapter}
    planned: list[tuple[Flow[..., Any], dict[str, str | None]]] = [(monitor, common), (update, common)]
    if schedule.source:
        labels = str(Path(schedule.labels).absolute()) if schedule.labels else None
        offered = {"source": str(Path(schedule.source).absolute()), "labels": labels}
        planned.insert(0, (ingest, common | offered))
    return [_deployment(flow, schedule, parameters) for flow, parameters in planned]


def register(schedule: Schedule, pool: str) -> list[str]:
    """Register the deployments for workers of a work pool; their names."""
    _check_cron(schedule.cron)
    _require_server()
    named = deployments(schedule)
    for deployment in named:
        deployment.apply(work_pool_name=pool)
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in named]


def serve_deployments(schedule: Schedule) -> None:
    """Register the deployments and run what is due or asked for, until stopped; one run at a time."""
    _check_cron(schedule.cron)
    _require_server()
    serve(*deployments(schedule), limit=1)


def _deployment(flow: Flow[..., Any], schedule: Schedule, parameters: dict[str, str | None]) -> RunnerDeployment:
    made = flow.to_deployment(
        schedule.adapter,
        cron=schedule.cron,
        parameters=parameters,
        description=flow.description,
        tags=["continual", schedule.adapter],
        # The flows live in an installed package, not in a file of the working directory.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Prefect types this as "deployment or coroutine"; in synchronous code it is a deployment.
    return cast("RunnerDeployment", made)


def _require_server() -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:
        raise ServiceError(
            "no Prefect server is named: start one with `prefect server start`, then "
            "`prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            raise ServiceError(
                f"the Prefect server at {address} does not answer: start it with `prefect server start`, or correct "
                "PREFECT_API_URL"
            )


def _check_cron(cron: str) -> None:
    try:
        CronSchedule(cron=cron)
    except ValidationError:
        raise SettingsError(
            f"cron {cron!r} is no schedule: write minute hour day month weekday, for example '0 2 * * *'"
        ) from None


__all__ = ["Schedule", "deployments", "register", "serve_deployments"]
