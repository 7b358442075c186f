"""Routes of what was done: updates and the ledger; knows nothing of who may read them."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.parameters import LARGEST_NUMBER, PLAIN_NAME, Held, Limit
from api.schemas import LedgerCheck
from continual.domain.adapters import LedgerEntry
from registry import Update

router = APIRouter(prefix="/v1", tags=["record"])


@router.get("/updates")
def updates(
    service: Held, adapter: Annotated[str | None, Query(pattern=PLAIN_NAME)] = None, limit: Limit = 100
) -> list[Update]:
    """Attempts to update, newest first, with their outcome and the seconds of each step."""
    return list(service.registry.updates.list(adapter=adapter, limit=limit))


@router.get("/ledger")
def ledger(
    service: Held, after: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0, limit: Limit = 100
) -> list[LedgerEntry]:
    """Entries in order of position, beginning after `?after=`; each digest covers the one before it."""
    return list(service.registry.ledger.list(after=after, limit=limit))


@router.get("/ledger/verify")
def verify(service: Held) -> LedgerCheck:
    """Walks the whole hash chain; 500 names the position where it breaks."""
    return LedgerCheck(verified=True, entries=service.registry.ledger.verify())
