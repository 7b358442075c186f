"""The route that predicts for one image; knows nothing of models or image formats."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from api.parameters import AdapterName
from api.schemas import STORABLE, DriftState, PredictionAnswer
from api.service import Service, service_of
from api.serving import decoded
from api.uploads import read_image
from continual.domain.errors import NotFoundError

router = APIRouter(prefix="/v1/adapters", tags=["predictions"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


@router.post("/{name}/predict", openapi_extra=BODY, responses={413: {"description": "The image is too large"}})
async def predict(
    request: Request, name: AdapterName, site: Annotated[str | None, Query(pattern=STORABLE)] = None
) -> PredictionAnswer:
    """Scores of one PNG, JPEG or DICOM image under the champion; with `?site=`, that site's latest drift verdict."""
    service = service_of(request)
    with service.desk.seat():
        data = await read_image(request, service.options.max_upload_bytes)
        answer = await service.desk.predict(name, None, [lambda: decoded(data)])
    scores = answer.scores[0]
    return PredictionAnswer(
        adapter=answer.version.adapter,
        version=answer.version.number,
        backbone_digest=answer.backbone_digest,
        label=max(scores, key=scores.__getitem__),
        scores=scores,
        drift=await run_in_threadpool(drift_state, service, site) if site else None,
    )


def drift_state(service: Service, site: str) -> DriftState | None:
    """The site's latest verdict; None for a site never looked at."""
    try:
        report = service.registry.drift.latest(site)
    except NotFoundError:
        return None
    return DriftState.of(report) if report is not None else None
