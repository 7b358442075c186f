"""Files that are written whole or not at all: into a draft beside the file, which then takes its name.

Knows bytes and paths; knows nothing of what they hold.
"""

import os
import tempfile
from pathlib import Path

UNFINISHED = ".part"
"""End of a draft's name; its beginning is the file's own, so that whoever deletes one finds the other."""


def write_whole(path: Path, data: bytes | memoryview, *, flushed: bool = False) -> None:
    """Write a file whole or not at all; `flushed`, its bytes are on the disk before it has its name.

    Raises OSError, and leaves no draft, where the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if flushed:
                file.flush()
                os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
