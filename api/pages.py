"""The pages a person opens, and their assets, all from this machine; knows nothing of what they show."""

from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from prometheus_client import CONTENT_TYPE_LATEST

from api.dashboard import dashboard_of
from api.security import PAGE_SECURITY_POLICY
from api.service import Service, service_of
from continual.domain.errors import NotFoundError

HERE = Path(__file__).parent
ASSETS = {
    "dashboard.css": (None, "static/dashboard.css"),
    "dashboard.js": (None, "static/dashboard.js"),
    "docs.js": (None, "static/docs.js"),
    "icon.svg": (None, "static/icon.svg"),
    "plotly.min.js": ("plotly", "package_data/plotly.min.js"),
    "swagger-ui-bundle.js": ("fastapi_offline", "static/swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css"),
}
"""Asset name to (installed package or None for our own, path inside it); nothing else is ever served."""

router = APIRouter(include_in_schema=False)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment


@cache
def asset_path(name: str) -> Path:
    """Where an asset lies; raises NotFoundError for any name not listed in `ASSETS`."""
    if name not in ASSETS:
        raise NotFoundError(f"there is no asset {name!r}; the dashboard is at /dashboard")
    package, path = ASSETS[name]
    if package is None:
        return HERE / path
    # Found, not imported: only the files beside the package's code are wanted.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise NotFoundError(f"the package {package} is not installed; install continual-imaging with its dependencies")
    return Path(spec.origin).parent / path


def _page(template: str, **values: object) -> HTMLResponse:
    text = _templates().get_template(template).render(values)
    return HTMLResponse(text, headers={"content-security-policy": PAGE_SECURITY_POLICY, "cache-control": "no-cache"})


@router.get("/")
async def root() -> Response:
    """The dashboard is the front page."""
    return RedirectResponse("/dashboard")


@router.get("/dashboard")
def dashboard(service: Annotated[Service, Depends(service_of)], adapter: str | None = None) -> Response:
    """Every site's state and one adapter's versions."""
    return _page("dashboard.html", page=dashboard_of(service, adapter), now=datetime.now(UTC))


@router.get("/docs")
async def docs() -> Response:
    """The API's reference, drawn by Swagger UI from /openapi.json."""
    return _page("docs.html")


@router.get("/assets/{name}")
def asset(name: str) -> Response:
    """One script, style sheet or icon."""
    return FileResponse(asset_path(name), headers={"cache-control": "public, max-age=3600"})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    return Response(request.app.state.measures.text(), media_type=CONTENT_TYPE_LATEST)
