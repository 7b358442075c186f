"""The route that says how versions did once labels came; knows nothing of how labels are matched."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from api.adapters import in_utc, require_adapter
from api.parameters import AdapterName, Held
from api.schemas import STORABLE
from api.service import Service
from continual.domain.errors import NotFoundError
from continual.domain.predictions import Performance, performance_of

router = APIRouter(prefix="/v1/adapters", tags=["predictions"])


@router.get("/{name}/performance")
def performance(
    service: Held,
    name: AdapterName,
    site: Annotated[str | None, Query(pattern=STORABLE)] = None,
    as_of: Annotated[datetime | None, Query(description="What was known then; without an offset it is UTC")] = None,
) -> list[Performance]:
    """Balanced accuracy by version and month of prediction, from labels that came since; of one site with `?site=`.

    A label counts from when it came here: `?as_of=` says what could be known then.
    """
    require_adapter(service, name)
    moment = None if as_of is None else in_utc(as_of, "as_of")
    labelled = service.registry.predictions.labelled(name, site, moment)
    if not labelled:
        _check_site(service, name, site)
    return performance_of(labelled, by_month=True)


def _check_site(service: Service, adapter: str, site: str | None) -> None:
    """Raise NotFoundError for a site that neither images, predictions nor labels of predictions name."""
    known, said = service.registry.samples.sites(), service.registry.predictions
    if site is None or site in known or said.list(adapter, site) or said.labelled(adapter, site):
        return
    raise NotFoundError(f"there is no site {site!r}; known: {', '.join(known) or 'none yet'}; GET /v1/sites lists them")
