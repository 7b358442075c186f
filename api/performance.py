"""The route that says how versions did once labels came; knows nothing of how labels are matched."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from api.adapters import require_adapter
from api.parameters import AdapterName, Held
from api.schemas import STORABLE
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
    moment = as_of.replace(tzinfo=UTC) if as_of is not None and as_of.tzinfo is None else as_of
    return performance_of(service.registry.predictions.labelled(name, site, moment), by_month=True)
