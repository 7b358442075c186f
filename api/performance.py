"""The route that says how versions did once labels came; knows nothing of how labels are matched."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from api.adapters import require_adapter
from api.parameters import AdapterName, Held
from api.problems import Problem
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
    moment = None if as_of is None else _in_utc(as_of)
    return performance_of(service.registry.predictions.labelled(name, site, moment), by_month=True)


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        detail = f"as_of is {moment.isoformat()}, must be of the years 1 to 9999 in UTC; ask for another time"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
