"""Bytes under their SHA-256 address in any fsspec store; knows nothing of what the bytes mean.

A local folder gets a temporary file, flushed and renamed, so a reader sees a whole artifact or none; an object store's
single upload is whole or nothing by itself. Whatever is read is held against its address.
"""

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

from continual.domain.digests import sha256_bytes
from continual.domain.errors import ArtifactError, RegistryError, SettingsError, StorageFullError

INCOMING = ".incoming"
STALE_AFTER_S = 24 * 3600
"""A temporary file older than this belongs to a writer that was killed."""
WRITERS = 8
"""Files flushed side by side: the disk joins their flushes, the processor hardly notices."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADDRESS = re.compile(r"[0-9a-f]{64}")


@final
class ArtifactStore:
    """A content-addressed store at `artifacts_url`: a folder, or any URL that fsspec opens (`s3://bucket/prefix`).

    Raises SettingsError when the URL cannot be opened.
    """

    def __init__(self, artifacts_url: str) -> None:
        self._files, self._root = _opened(artifacts_url)
        self._folder = Path(self._root) if _is_local(self._files) else None
        if self._folder is not None:
            (self._folder / INCOMING).mkdir(parents=True, exist_ok=True)
            _sweep(self._folder / INCOMING)

    def put(self, data: bytes) -> str:
        """Store the bytes, unless they are there already; their SHA-256.

        Raises StorageFullError when there is no room, and leaves nothing partial.
        """
        digest = sha256_bytes(data)
        # A size that differs is what a power cut leaves of an unflushed file: write it again.
        if self._size(digest) != len(data):
            self._write(digest, data)
        return digest

    def put_all(self, items: Iterable[bytes]) -> list[str]:
        """Store many, several at a time; their SHA-256 in the order given. Errors as `put`."""
        with ThreadPoolExecutor(WRITERS) as pool:
            return list(pool.map(self.put, items))

    def get(self, digest: str) -> bytes:
        """The bytes at this address; ArtifactError when they are missing or do not match it."""
        try:
            data: bytes = self._files.cat_file(self._address(digest))
        except FileNotFoundError:
            raise ArtifactError(f"artifact {digest} is missing from the store; restore it from a backup") from None
        if sha256_bytes(data) != digest:
            raise ArtifactError(
                f"artifact {digest} holds {len(data)} bytes that do not match its digest; restore it from a backup"
            )
        return data

    def has(self, digest: str) -> bool:
        """Whether something lies at this address; only `get` proves that it is whole."""
        return self._size(digest) is not None

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Bytes of each artifact, asked for several at a time; those that are missing are left out."""
        wanted = list(dict.fromkeys(digests))
        with ThreadPoolExecutor(WRITERS) as pool:
            found = zip(wanted, pool.map(self._size, wanted), strict=True)
            return {digest: size for digest, size in found if size is not None}

    def path(self, digest: str) -> Path | None:
        """Where the artifact lies, or would lie, in a local folder; None for any other kind of store."""
        address = self._address(digest)
        return None if self._folder is None else Path(address)

    def delete(self, digest: str) -> None:
        """Remove the artifact; nothing happens when it is not there. The caller knows that no record refers to it."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._address(digest))

    def delete_all(self, digests: Iterable[str]) -> None:
        """Remove many, several at a time; errors and duties as `delete`."""
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self.delete, digests))

    def _address(self, digest: str) -> str:
        if _ADDRESS.fullmatch(digest) is None:
            raise ArtifactError(
                f"artifact address {digest[:80]!r} is not a SHA-256 in 64 lower-case hexadecimal digits"
            )
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _size(self, digest: str) -> int | None:
        address = self._address(digest)
        try:
            if self._folder is not None:
                return Path(address).stat().st_size
            return int(self._files.info(address)["size"])
        except FileNotFoundError:
            return None

    def _write(self, digest: str, data: bytes) -> None:
        address = self._address(digest)
        with _named_errors(len(data)):
            if self._folder is None:
                self._files.pipe_file(address, data)
            else:
                _write_whole(self._folder / INCOMING, Path(address), data)


def _write_whole(incoming: Path, target: Path, data: bytes) -> None:
    partial = incoming / f"{target.name}.{uuid.uuid4().hex}"
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named_errors(size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFullError(
                f"no room for an artifact of {size_bytes} bytes ({os.strerror(error.errno)}) and nothing partial was "
                "kept; free space on the artifact store, repeat the call"
            ) from error
        raise RegistryError(
            f"the artifact store cannot be written ({type(error).__name__}); check its rights and that it is reachable"
        ) from error


def _opened(artifacts_url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        # A cached listing could call an artifact present that another process has deleted since.
        files, root = url_to_fs(artifacts_url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise SettingsError(
            "the artifacts URL cannot be opened; use a folder, or a URL whose fsspec driver is installed"
        ) from error
    return files, str(root).rstrip("/")


def _is_local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def _sweep(incoming: Path) -> None:
    oldest = time.time() - STALE_AFTER_S
    for partial in incoming.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if partial.stat().st_mtime < oldest:
                partial.unlink()
