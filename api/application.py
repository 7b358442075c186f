"""Puts the service together: routes, errors, headers, measures; knows nothing of settings or sockets."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import adapters, inference_protocol, pages, performance, predict, records, sites, version_files
from api.current import CurrentAnswers
from api.measures import Measured, Measures
from api.options import ServiceOptions
from api.prediction_log import PredictionLog
from api.problems import install_problems
from api.security import SecurityHeaders
from api.service import Service
from api.serving import PredictionDesk
from registry import Registry

DESCRIPTION = (
    "Which adapter version is current, its files, predictions, drift verdicts and the record of every change. "
    "Errors are `application/problem+json` (RFC 9457)."
)


@asynccontextmanager
async def _lifetime(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    loading = asyncio.create_task(service.desk.preload()) if service.options.preload else None
    yield
    if loading is not None:
        loading.cancel()
    service.stopping.set()
    service.desk.close()
    service.predictions.close()
    service.current.close()


def create_app(registry: Registry, options: ServiceOptions, stopping: threading.Event | None = None) -> FastAPI:
    """The service over one registry. Setting `stopping` ends long polls, so that a server can end gracefully."""
    app = FastAPI(
        title="Continual",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere; api.pages serves them from here
        redoc_url=None,
        lifespan=_lifetime,
    )
    measures = Measures(registry)
    app.state.service = Service(
        registry=registry,
        options=options,
        current=CurrentAnswers(registry),
        desk=PredictionDesk(registry, options.predictor_loader, options.max_waiting_predictions),
        predictions=PredictionLog(registry),
        stopping=stopping or threading.Event(),
    )
    app.state.measures = measures
    install_problems(app)
    for room in (adapters, performance, version_files, predict, sites, records, inference_protocol, pages):
        app.include_router(room.router)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Measured, measures=measures)
    return app
