"""Where cached activations lie, which images have any, and their removal; that of training states, too.

Activations: a folder per key (backbone, split, side), in it folders by the first two digits of the image's digest.
Training states: one file per update in one folder. Knows nothing of what is in the files.
"""

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

UNFINISHED = ".part"
STALE_AFTER_S = 3600
"""An unfinished file older than this belongs to a writer that was killed: one is written in milliseconds."""


def file_of(digest: str, kind: str) -> Path:
    """Path under a key's folder; `kind` is `features`, or `v` and the number of a view."""
    return Path(digest[:2]) / f"{digest}.{kind}.npy"


def cached_digests(folder: Path) -> frozenset[str]:
    """Digests of all images with any activation under any key; none where there is no folder."""
    return frozenset(path.name.partition(".")[0] for path in folder.glob("*/*/*.npy"))


def forget_activations(folder: Path, digests: Collection[str]) -> int:
    """Delete every key's files of these images; how many there were. Again, or without a folder, it deletes nothing.

    What killed writers left unfinished goes too, as nobody can tell whose it is.
    """
    deleted = 0
    for digest in digests:
        for path in folder.glob(f"*/{digest[:2]}/{digest}.*.npy"):
            path.unlink(missing_ok=True)
            deleted += 1
    oldest = time.time() - STALE_AFTER_S
    for path in folder.glob(f"*/*/*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if path.stat().st_mtime < oldest:
                path.unlink()
    return deleted


def forget_training_state(path: Path) -> int:
    """Delete an update's training state and what killed writers of it left; how many files there were."""
    drafts = path.parent.glob(f"{path.stem}.*{UNFINISHED}")
    return sum(_deleted(found) for found in (path, *drafts))


def forget_training_states(folder: Path) -> int:
    """Delete every training state; how many files there were. Updates that did not end start anew."""
    return sum(_deleted(found) for found in folder.glob("*") if found.is_file())


def _deleted(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
