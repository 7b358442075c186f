"""Download of a version's files: ranges, digests, kept for ever by caches; knows nothing of what they hold."""

import base64
import re
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from api.adapters import matches
from api.parameters import AdapterName, Held, Number
from api.problems import Problem
from continual.domain.errors import NotFoundError

MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown; charset=utf-8"}
ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
"""No file has more digits of bytes, and Python refuses to read a number of thousands of them."""

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])


def repr_digest(sha256_hex: str) -> str:
    """The Repr-Digest field of a whole representation (RFC 9530): SHA-256 in base64 between colons."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256_hex)).decode()}:"


def byte_range(header: str | None, size: int) -> slice | None:
    """The one range asked for, as a slice of `size` bytes; None means the whole (also for several ranges).

    Raises Problem 416 when the range lies outside (RFC 9110 section 14.2).
    """
    asked = ONE_RANGE.fullmatch(header.strip()) if header else None
    if asked is None or asked.group() == "bytes=-":
        return None
    first, last = asked.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    if first and last and int(last) < int(first):
        return None
    if start >= size or stop <= start:
        raise Problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"{header} lies outside the file's {size} bytes; ask for bytes=0-{size - 1} or less",
            {"content-range": f"bytes */{size}"},
        )
    return slice(start, stop)


@router.head("/{name}/versions/{number}/files/{file}", include_in_schema=False)
@router.get("/{name}/versions/{number}/files/{file}", response_class=Response)
def version_file(request: Request, service: Held, name: AdapterName, number: Number, file: str) -> Response:
    """One file of a version. Its bytes never change: `ETag` and `Repr-Digest` are its SHA-256; `Range` is honoured."""
    version = service.registry.adapters.get(name, number)
    if file not in version.files:
        raise NotFoundError(f"version {number} has no file {file!r}; it has {', '.join(sorted(version.files))}")
    digest, size = version.files[file]
    etag = f'"{digest}"'
    headers = {
        "etag": etag,
        "repr-digest": repr_digest(digest),
        "cache-control": "public, max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "content-disposition": "attachment",
    }
    known = request.headers.get("if-none-match")
    if known is not None and matches(known, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    condition = request.headers.get("if-range")
    part = byte_range(request.headers.get("range"), size) if condition in (None, etag) else None
    suffix = file[file.rfind(".") :] if "." in file else ""
    media_type = MEDIA_TYPES.get(suffix, "application/octet-stream")
    data = service.registry.adapters.file(name, number, file)
    if part is None:
        return Response(data, headers=headers, media_type=media_type)
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Response(data[part], HTTPStatus.PARTIAL_CONTENT, headers, media_type)
