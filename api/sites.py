"""Routes of sites and drift reports; knows nothing of how a verdict comes about."""

from urllib.parse import quote

from fastapi import APIRouter

from api.parameters import Held, Limit, Number, SiteName
from api.predict import drift_state
from api.schemas import DriftState, Site, SiteDrift
from api.service import Service
from continual.domain.adapters import Task
from continual.domain.drift import DriftReport
from continual.domain.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["sites and drift"])


def site_view(service: Service, site: str) -> Site:
    """A site's stream in numbers, with its latest verdict."""
    stored = service.registry.samples.list(site=site, with_held=True)
    held = service.registry.holds.held(site)
    path = f"/v1/sites/{quote(site, safe='')}"
    return Site(
        site=site,
        samples=len(stored),
        labelled=sum(sample.labelled_for(Task.CLASSIFICATION) for sample in stored),
        masked=sum(sample.labelled_for(Task.SEGMENTATION) for sample in stored),
        quarantined=len(service.registry.samples.quarantine(site)),
        held=sum(sample.batch in held for sample in stored),
        drift=drift_state(service, site),
        links={"drift": f"{path}/drift"},
    )


@router.get("/sites")
def sites(service: Held) -> list[Site]:
    """Every site in the order of its first intake."""
    return [site_view(service, site) for site in service.registry.samples.sites()]


@router.get("/sites/{site}/drift")
def site_drift(service: Held, site: SiteName, limit: Limit = 100) -> SiteDrift:
    """The latest report in full and the verdicts before it; empty for a site that was never looked at."""
    reports = list(service.registry.drift.list(site=site, limit=limit))
    if not reports and site not in service.registry.samples.sites():
        raise NotFoundError(f"there is no site {site!r}; GET /v1/sites lists them")
    return SiteDrift(
        site=site, latest=reports[0] if reports else None, history=[DriftState.of(report) for report in reports]
    )


@router.get("/drift-reports/{number}")
def drift_report(service: Held, number: Number) -> DriftReport:
    """One look at one site: verdict, action and every signal behind it."""
    return service.registry.drift.get(number)
