"""The Open Inference Protocol (KServe v2 REST) over the same desk; knows nothing of models or image formats.

Input is one tensor: `BYTES` of base64 images in any shape, or `UINT8` pixels of shape [height, width, 3] or
[image, height, width, 3]. A version that takes boxes may be given a second one, `box`: FP32 [image, 4] for all classes,
or [image, class, 4], each x0, y0, x1, y1 between the edges of the pixels; without it the box is the whole image.
Outputs are `scores` (FP32 [image, class], in the order of `classes`) and `label` (BYTES); of
a version that segments, `mask` (UINT8 [image, height, width], class numbers: 0 is the background, `classes` follow from
1) and `share` (FP32 [image, 1 + class], of the pixels). A version that looks at volumes takes `BYTES` of base64 NIfTI,
and its `mask` is UINT8 [volume, i, j, k], in the order of the file's own axes.
"""

import base64
import binascii
import json
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from api.boxes import REQUEST, WHOLE_IMAGE, boxes_of_tensor
from api.masks import JSON, PNG, class_shares
from api.parameters import AdapterName, Held, Number
from api.problems import Problem
from api.schemas import STORABLE, Version
from api.service import service_of
from api.serving import BoxSource, Image, Pixels, Prediction, checked, decoded, no_boxes
from api.uploads import read_body
from api.volumes import GZIP, masks_as_uploaded
from continual.domain.adapters import CLOSED_FORM, AdapterVersion, Task, asked_with_boxes, kind_of, of_volumes
from continual.domain.metrics import task_of

IMAGES_PER_CALL = 16
MASK_PIXELS_PER_CALL = 8 * 1024 * 1024
"""Most pixels of masks in one answer: each is a number in JSON."""

BOX = "box"
BOX_TYPES = ("FP16", "FP32", "FP64", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")

BODY: dict[str, Any] = {"requestBody": {"content": {"application/json": {}}}}

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


class Tensor(BaseModel):
    """One named array, flattened in row-major order or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferenceRequest(BaseModel):
    """What a client asks: one input of images, and for a version that takes boxes one named `box`."""

    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=2)


class InferenceAnswer(BaseModel):
    """What a version said, with the version that said it."""

    model_name: str
    model_version: str
    id: str | None
    parameters: dict[str, str]
    outputs: list[Tensor]


@router.get("")
async def server() -> dict[str, Any]:
    """Name and extensions of this server."""
    return {"name": "continual", "version": "1", "extensions": []}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready")
def ready(service: Held) -> dict[str, bool]:
    """Database and artifact store answer; 503 otherwise."""
    try:
        service.registry.adapters.alias_revision()
        service.registry.artifacts.has("0" * 64)
    except Exception as error:
        # Whatever a store or driver throws, it means the same here; its text may hold a connection's secrets.
        detail = f"the registry does not answer ({type(error).__name__}); check its database and artifact store"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail) from error
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{number}")
def metadata(service: Held, name: AdapterName, number: Number | None = None) -> dict[str, Any]:
    """Inputs, outputs and classes of a version (without a number: the champion)."""
    held = service.registry.adapters
    version = held.current(name) if number is None else held.get(name, number)
    return {
        "name": name,
        "versions": [str(version.number)],
        "platform": "closed_form" if kind_of(version.record) == CLOSED_FORM else "peft_lora",
        "inputs": _inputs_of(version),
        "outputs": _outputs_of(version),
        "parameters": Version.of(version).model_dump(mode="json", include={"classes", "digest", "backbone_digest"}),
    }


def _inputs_of(version: AdapterVersion) -> list[dict[str, Any]]:
    image = {"name": "image", "datatype": "BYTES", "shape": [-1]}
    box = {"name": BOX, "datatype": "FP32", "shape": [-1, len(version.classes), 4], "parameters": {"optional": True}}
    return [image, box] if asked_with_boxes(version.record) else [image]


def _outputs_of(version: AdapterVersion) -> list[dict[str, Any]]:
    if task_of(version.metric) is Task.SEGMENTATION:
        sides = 3 if of_volumes(version.record) else 2
        return [
            {"name": "mask", "datatype": "UINT8", "shape": [-1] * (1 + sides)},
            {"name": "share", "datatype": "FP32", "shape": [-1, 1 + len(version.classes)]},
        ]
    return [
        {"name": "scores", "datatype": "FP32", "shape": [-1, len(version.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{number}/ready")
async def model_ready(request: Request, name: AdapterName, number: Number | None = None) -> dict[str, Any]:
    """Loads the version and says so; 503 when its proof of life fails."""
    version = await service_of(request).desk.load(name, number)
    return {"name": name, "version": str(version.number), "ready": True}


@router.post("/models/{name}/infer", openapi_extra=BODY, response_model=InferenceAnswer)
@router.post("/models/{name}/versions/{number}/infer", openapi_extra=BODY, response_model=InferenceAnswer)
async def infer(
    request: Request,
    name: AdapterName,
    number: Number | None = None,
    site: Annotated[str | None, Query(pattern=STORABLE)] = None,
) -> Response:
    """Scores and labels, or masks, of up to 16 images; scores are kept, under `?site=`, for labels that come later."""
    service = service_of(request)
    with service.desk.seat():
        # Images and masks are millions of numbers: to read or spell them out on the event loop holds up everybody.
        body = await read_body(request, service.options.max_upload_bytes)
        asked_id, images, boxes = await service.desk.read(partial(_asked, body))
        del body
        answer = await service.desk.predict(name, number, images, boxes)
    service.predictions.keep(answer, site)
    return Response(await run_in_threadpool(_as_json, asked_id, answer), media_type=JSON)


def _asked(body: bytes) -> tuple[str | None, list[Callable[[], Image]], BoxSource]:
    """The request's id and `inputs_of` it; of the request itself nothing is kept while it waits for its turn."""
    asked = parsed(body)
    return asked.id, *inputs_of(asked)


def parsed(body: bytes) -> InferenceRequest:
    """The request in the protocol's form; raises Problem 422 without repeating any of it."""
    try:
        return InferenceRequest.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError) as error:
        detail = 'the body is not an inference request; send {"inputs": [{"name", "shape", "datatype", "data"}]}'
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error


def inputs_of(asked: InferenceRequest) -> tuple[list[Callable[[], Image]], BoxSource]:
    """Readers of the images, and the boxes of each once the version is known; raises Problem 422."""
    boxes = [tensor for tensor in asked.inputs if tensor.name == BOX]
    others = [tensor for tensor in asked.inputs if tensor.name != BOX]
    if len(others) != 1:
        detail = f"the request has {len(others)} tensors of images, must have 1; beside it only one named {BOX} is read"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    images = images_of(others[0])
    if not boxes:
        return images, no_boxes
    if boxes[0].datatype not in BOX_TYPES:
        detail = f"the box tensor's datatype is {boxes[0].datatype[:20]!r}, must be one of {', '.join(BOX_TYPES)}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}; convert it")
    held = boxes[0]
    return images, lambda version: boxes_of_tensor(held.shape, held.data, len(images), version.classes)


def images_of(tensor: Tensor) -> list[Callable[[], Image]]:
    """One reader per image, to be run where decoding is allowed; raises Problem 422 for a tensor of another kind."""
    if tensor.datatype == "BYTES":
        count = len(tensor.data)
        readers: list[Callable[[], Image]] = [partial(_decoded_text, text) for text in tensor.data]
    elif tensor.datatype == "UINT8":
        images = _pixels(tensor)
        count = len(images)
        readers = [partial(checked, image) for image in images]
    else:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"datatype is {tensor.datatype[:20]!r}, must be BYTES (base64 images) or UINT8 (pixels); convert it",
        )
    if not 1 <= count <= IMAGES_PER_CALL:
        detail = f"the tensor holds {count} images, must be 1 to {IMAGES_PER_CALL}; split the request"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return readers


def _decoded_text(text: object) -> Image:
    try:
        data = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        detail = "a BYTES element is not base64; encode each image's bytes with base64"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
    return decoded(data)


def _pixels(tensor: Tensor) -> list[Pixels]:
    shape = tensor.shape
    if len(shape) not in (3, 4) or shape[-1] != 3 or min(shape) < 1:
        detail = f"shape is {shape[:8]}, must be [height, width, 3] or [image, height, width, 3]; reshape the tensor"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    try:
        values = _whole_numbers(tensor.data).reshape(-1, *shape[-3:])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        detail = f"data does not fill shape {shape} with whole numbers; send one number per pixel and channel"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
    if len(shape) == 4 and len(values) != shape[0]:
        detail = f"data holds {len(values)} images, shape says {shape[0]}; make them equal"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    if values.size and (values.min() < 0 or values.max() > 255):
        detail = f"pixels range from {values.min()} to {values.max()}, must lie in 0 to 255; rescale them"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return list(values.astype(np.uint8))


def _whole_numbers(data: list[Any]) -> NDArray[np.int64]:
    """The numbers as they are nested, 3.0 for 3 too; ValueError, TypeError or OverflowError where they are none."""
    values = np.asarray(data, dtype=object)
    if not set(map(type, values.ravel())) <= {int, float}:
        raise TypeError("neither booleans nor texts are numbers, nor rows of several lengths")
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ValueError("a number is not whole")
    return whole


def _as_json(asked_id: str | None, answer: Prediction) -> str:
    version = answer.version
    return InferenceAnswer(
        model_name=version.adapter,
        model_version=str(version.number),
        id=asked_id,
        parameters={"backbone_digest": answer.backbone_digest, "classes": ",".join(version.classes), **_boxes(answer)},
        outputs=_masks(answer) if answer.task is Task.SEGMENTATION else _scores(answer),
    ).model_dump_json()


def _boxes(answer: Prediction) -> dict[str, str]:
    """Of a version that takes boxes, where they came from."""
    if not asked_with_boxes(answer.version.record):
        return {}
    return {"boxes": REQUEST if any(answer.boxes) else WHOLE_IMAGE}


def _scores(answer: Prediction) -> list[Tensor]:
    classes, count = answer.version.classes, len(answer.scores)
    scores = [float(each[name]) for each in answer.scores for name in classes]
    labels = [max(each, key=each.__getitem__) for each in answer.scores]
    return [
        Tensor(name="scores", datatype="FP32", shape=[count, len(classes)], data=scores),
        Tensor(name="label", datatype="BYTES", shape=[count], data=labels),
    ]


def _masks(answer: Prediction) -> list[Tensor]:
    """Both tensors; raises Problem 422 where images of several sizes cannot share one, and 413 for too many pixels."""
    masks = masks_as_uploaded(answer) if answer.grids else [said.mask for said in answer.masks]
    sizes = sorted({mask.shape for mask in masks})
    if len(sizes) > 1:
        detail = f"the images have {len(sizes)} sizes, one tensor of masks has one; send one size per request"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    pixels = sum(mask.size for mask in masks)
    if pixels > MASK_PIXELS_PER_CALL:
        file = GZIP if answer.grids else PNG
        detail = (
            f"the masks hold {pixels} pixels, at most {MASK_PIXELS_PER_CALL} are sent as JSON; send fewer or smaller "
            f"images, or ask /v1/adapters/{{name}}/predict with Accept: {file}"
        )
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    classes = answer.version.classes
    shares = [share for mask in masks for share in class_shares(mask, classes)]
    return [
        Tensor(
            name="mask", datatype="UINT8", shape=[len(masks), *sizes[0]], data=np.concatenate(masks).ravel().tolist()
        ),
        Tensor(name="share", datatype="FP32", shape=[len(masks), 1 + len(classes)], data=shares),
    ]
