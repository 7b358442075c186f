"""Routes of sites and drift reports; knows nothing of how a verdict comes about."""

from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from api.parameters import PLAIN_NAME, Held, Limit, Number, SiteName
from api.predict import drift_state
from api.schemas import DriftState, Site, SiteDrift
from api.security import PAGE_SECURITY_POLICY
from api.service import Service
from continual.domain.drift import DriftReport
from continual.domain.errors import NotFoundError
from registry import SampleCounts, report_view

router = APIRouter(prefix="/v1", tags=["sites and drift"])


def site_view(service: Service, site: str, counts: SampleCounts) -> Site:
    """A site's stream in numbers, with its latest verdict."""
    path = f"/v1/sites/{quote(site, safe='')}"
    return Site(
        site=site,
        samples=counts.samples,
        labelled=counts.labelled,
        masked=counts.masked,
        quarantined=counts.quarantined,
        held=service.registry.holds.samples_held(site),
        drift=drift_state(service, site),
        links={"drift": f"{path}/drift"},
    )


@router.get("/sites")
def sites(service: Held) -> list[Site]:
    """Every site in the order of its first intake."""
    return [site_view(service, site, counts) for site, counts in service.registry.samples.counts().items()]


@router.get("/sites/{site}/drift")
def site_drift(
    service: Held, site: SiteName, adapter: Annotated[str | None, Query(pattern=PLAIN_NAME)] = None, limit: Limit = 100
) -> SiteDrift:
    """The latest report in full and the verdicts before it, of one adapter or of all; empty where none has looked."""
    reports = list(service.registry.drift.list(site=site, limit=limit, adapter=adapter))
    if not reports and site not in service.registry.samples.sites():
        raise NotFoundError(f"there is no site {site!r}; GET /v1/sites lists them")
    return SiteDrift(
        site=site, latest=reports[0] if reports else None, history=[DriftState.of(report) for report in reports]
    )


@router.get("/drift-reports/{number}.html", response_class=HTMLResponse)
def drift_report_page(service: Held, number: Number) -> Response:
    """The same look for people: root cause, evidence over time, performance, a map and example images."""
    from continual.imaging import thumbnails
    from monitoring.drift_page import Surroundings, drift_page

    report = service.registry.drift.get(number)
    view = report_view(service.registry, report)
    note = f"For the distributions of tags and pixel statistics: continual drift show {report.site} --html report.html"
    links = (("Dashboard", "/dashboard"), ("This report as JSON", f"/v1/drift-reports/{number}"))
    page = drift_page(replace(view, images=thumbnails(view.images)), Surroundings(None, note, links))
    # Not kept by browsers or proxies: it shows images, which may be erased here at any time.
    return HTMLResponse(page, headers={"content-security-policy": PAGE_SECURITY_POLICY, "cache-control": "no-store"})


@router.get("/drift-reports/{number}")
def drift_report(service: Held, number: Number) -> DriftReport:
    """One look at one site: verdict, action and every signal behind it."""
    return service.registry.drift.get(number)
