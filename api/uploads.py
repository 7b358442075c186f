"""An uploaded image, read with a limit, whole or as a form's `file`; never keeps or repeats its file name."""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from api.problems import Problem

FORM = "multipart/form-data"


class _InMemoryParser(MultiPartParser):
    # A patient's image must not touch the disk of a machine that only predicts.
    spool_max_size = 0


async def _limited(request: Request, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    announced = request.headers.get("content-length", "")
    received = int(announced) if announced.isdecimal() else 0
    if received <= limit_bytes:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit_bytes:
                break
            yield chunk
    if received > limit_bytes:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the upload has at least {received} bytes, the limit is {limit_bytes}; send one image per request, or "
            "raise the server's CONTINUAL_UPLOAD_MIB",
            # A body left unread would be taken for the next request on this connection.
            {"connection": "close"},
        )


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises Problem 413 as soon as more than `limit_bytes` bytes are known to come."""
    return b"".join([chunk async for chunk in _limited(request, limit_bytes)])


async def read_image(request: Request, limit_bytes: int) -> bytes:
    """The image's bytes: the body as it is, or the part `file` of a multipart form.

    Raises Problem 413 above `limit_bytes` and 422 for a form without that part or an empty image.
    """
    if request.headers.get("content-type", "").startswith(FORM):
        data = await _form_file(request.headers, _limited(request, limit_bytes))
    else:
        data = await read_body(request, limit_bytes)
    if not data:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the image has 0 bytes; send a PNG, JPEG, DICOM or NIfTI file")
    return data


async def _form_file(headers: Headers, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        form = await _InMemoryParser(headers, stream, max_files=1, max_fields=8).parse()
    except MultiPartException as error:
        detail = "the multipart form cannot be read; send one part named file, or the image's bytes as the body"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
    part = form.get("file")
    if part is None or isinstance(part, str):
        detail = "the form has no file part named file; name it file, or send the image's bytes as the body"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    data: bytes = await part.read()
    await form.close()
    return data
