"""Keeps a folder of cached activations within its bytes: what was used least lately goes first.

The time of last use is the file's access time, set on purpose, as file systems are often mounted not to keep it. Knows
files; knows nothing of what is in them: whoever reads must be able to compute again what has gone.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

ROOM = 0.1
"""Share of the limit that is free after files were deleted, and the most that is written before looking again."""


class CacheBound:
    """Makes room in `folder` before something is written to it. A `limit_bytes` of 0 sets no bound."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._room = 0

    def admits(self, size_bytes: int) -> bool:
        """Whether that many bytes may be written now, older files having been deleted for them where needed.

        Other processes may write meanwhile: each passes the limit by a tenth of it at most. False only for what is
        larger than the limit by itself.
        """
        if not self._limit:
            return True
        if size_bytes > self._limit:
            return False
        if size_bytes > self._room:
            self._room = max(size_bytes, self._make_room(size_bytes))
        self._room -= size_bytes
        return True

    def used(self, paths: Iterable[Path]) -> None:
        """Note that these files are used now; those that are not there are passed over."""
        if not self._limit:
            return
        now = time.time_ns()
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(now, path.stat().st_mtime_ns))

    def _make_room(self, size_bytes: int) -> int:
        """Delete files, the least lately used first, until the bytes fit; how much may be written before the next look.

        Nothing is deleted while they fit.
        """
        files = self._files()
        held = sum(size for _, size, _ in files)
        if held + size_bytes > self._limit:
            aim = max(0, min(self._limit - size_bytes, int(self._limit * (1 - ROOM))))
            for _, size, path in sorted(files):
                if held <= aim:
                    break
                path.unlink(missing_ok=True)
                held -= size
        return min(self._limit - held, int(self._limit * ROOM))

    def _files(self) -> list[tuple[int, int, Path]]:
        """Time of last use, bytes and path of every file."""
        found = []
        for path in self._folder.glob("*/*/*.npy"):
            with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                told = path.stat()
                found.append((told.st_atime_ns, told.st_size, path))
        return found
