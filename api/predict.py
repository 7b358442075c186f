"""The route that predicts for one image; knows nothing of models or image formats."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.boxes import boxes_of_query, origins
from api.masks import JSON, PNG, MaskPrediction, mask_png, mask_prediction, prefers
from api.parameters import AdapterName
from api.problems import Problem
from api.schemas import STORABLE, DriftState, PredictionAnswer
from api.service import Service, service_of
from api.serving import Prediction, decoded
from api.uploads import read_image
from api.volumes import GZIP, VolumeMaskPrediction, mask_nifti, volume_prediction
from continual.domain.adapters import Task, asked_with_boxes
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


NO_BOXES: list[str] = []
BOX_HELP = (
    "For a version that takes boxes, where a class lies: x0,y0,x1,y1 between the edges of the image's own pixels "
    "(0,0,width,height is all of it), for every class, or class:x0,y0,x1,y1, repeated. With any box a class without "
    "one is not looked for; without any the whole image is the box, and the answer says so."
)


@router.post(
    "/{name}/predict",
    openapi_extra=BODY,
    response_model=PredictionAnswer | MaskPrediction | VolumeMaskPrediction,
    responses={
        200: {
            "description": "Scores, or a mask: as JSON, or if asked for as PNG, of a volume as .nii.gz",
            "content": {PNG: {}, GZIP: {}},
        },
        406: {"description": "A file was asked for that this version does not give"},
        413: {"description": "The image is too large"},
        422: {"description": "The image cannot be read, or a box is none, lies outside it or is not taken"},
    },
)
async def predict(
    request: Request,
    name: AdapterName,
    site: Annotated[str | None, Query(pattern=STORABLE)] = None,
    box: Annotated[list[str], Query(description=BOX_HELP)] = NO_BOXES,
) -> PredictionAnswer | MaskPrediction | VolumeMaskPrediction | Response:
    """Scores, or the mask, of one PNG, JPEG or DICOM image, or of one NIfTI volume, under the champion; with `?site=`,
    the adapter's latest drift verdict there. Scores are kept under the picture's content, for labels that come later.
    `Accept: image/png` gets the mask itself, a PNG of class numbers; of a volume `Accept: application/gzip` gets it, a
    .nii.gz in the upload's own grid and orientation. `?box=` tells a version that takes boxes where to look.
    """
    boxes = boxes_of_query(box)
    service = service_of(request)
    accept = request.headers.get("accept", "")
    with service.desk.seat():
        data = await read_image(request, service.options.max_upload_bytes)
        answer = await service.desk.predict(name, None, [lambda: decoded(data)], lambda _: [boxes] if boxes else ())
    service.predictions.keep(answer, site)
    drift = await run_in_threadpool(drift_state, service, site, name) if site else None
    if answer.task is Task.SEGMENTATION:
        return await run_in_threadpool(_mask_answer, answer, drift, accept)
    if prefers(accept, PNG) or prefers(accept, GZIP):
        raise _not_given(answer, "scores and no mask", JSON)
    scores = answer.scores[0]
    return PredictionAnswer(
        adapter=answer.version.adapter,
        version=answer.version.number,
        backbone_digest=answer.backbone_digest,
        label=max(scores, key=scores.__getitem__),
        scores=scores,
        drift=drift,
    )


def _mask_answer(
    answer: Prediction, drift: DriftState | None, accept: str
) -> MaskPrediction | VolumeMaskPrediction | Response:
    """The mask as what was asked for: a file of its own kind, or JSON."""
    volume = bool(answer.grids)
    own, other = (GZIP, PNG) if volume else (PNG, GZIP)
    if prefers(accept, own):
        return _file(answer, drift, mask_nifti(answer) if volume else mask_png(answer.masks[0].mask), own)
    if prefers(accept, other):
        raise _not_given(answer, f"masks of {'volumes' if volume else 'pictures'}", f"{own} or {JSON}")
    return volume_prediction(answer, drift) if volume else mask_prediction(answer, drift)


def _not_given(answer: Prediction, gives: str, remedy: str) -> Problem:
    version = answer.version
    return Problem(
        HTTPStatus.NOT_ACCEPTABLE,
        f"version {version.number} of {version.adapter} gives {gives}; ask with Accept: {remedy}",
    )


def _file(answer: Prediction, drift: DriftState | None, data: bytes, media_type: str) -> Response:
    """The mask as a file; what JSON would say beside it stands in headers."""
    headers = {
        "x-adapter-version": str(answer.version.number),
        "x-backbone-digest": answer.backbone_digest,
        "vary": "accept",
    }
    if asked_with_boxes(answer.version.record):
        headers["x-box-prompt"] = ", ".join(sorted(set(origins(answer.version, answer.boxes[0]).values())))
    if drift is not None:
        headers["x-drift-verdict"] = drift.verdict.value
    return Response(data, headers=headers, media_type=media_type)


def drift_state(service: Service, site: str, adapter: str | None = None) -> DriftState | None:
    """The latest verdict on a site, of one adapter or of all; None where none has looked."""
    try:
        report = service.registry.drift.latest(site, adapter)
    except NotFoundError:
        return None
    return DriftState.of(report) if report is not None else None
