"""Activations that are the only copy: moved out of the cache for good, on the disk before anything is deleted for them.

Same folders as the cache. Knows files; knows nothing of networks, nor of whose images they are.
"""

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from continual.learning.whole_files import write_whole

MOVERS = 8
"""Files flushed side by side: the disk joins their flushes."""


def keep_files(moves: Iterable[tuple[Path, Path]]) -> None:
    """Move each file from its first to its second path; on return, what was there survives a power cut.

    A file that is kept already, or that is no longer where it was, is passed over.
    """
    wanted = list(moves)
    for folder in {target.parent for _, target in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(MOVERS) as pool:
        list(pool.map(lambda move: _keep(*move), wanted))
    # A name is on the disk once its folder is, and a folder once the folder above it is.
    for folder in {above for _, target in wanted for above in target.parents[:4]}:
        _flush(folder)


def keep_bytes(target: Path, data: memoryview) -> None:
    """Write a file that survives a power cut on return, whole or not at all."""
    write_whole(target, data, flushed=True)
    for folder in target.parents[:4]:
        _flush(folder)


def _keep(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        _flush(source)
        source.replace(target)
    except FileNotFoundError:  # another process has just made room in the cache
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Cache and kept activations lie on two file systems.
        keep_bytes(target, memoryview(source.read_bytes()))
        source.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
