"""Where activations lie, which images have any, how large they are, and their removal; that of training states, too.

Activations: a folder per key (backbone, split, side), in it folders by the first two digits of the image's digest.
Training states: one file per update in one folder. Knows nothing of what is in the files.
"""

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from continual.learning.whole_files import UNFINISHED

STALE_AFTER_S = 3600
"""An unfinished file older than this belongs to a writer that was killed: one is written in milliseconds."""
FEATURES = "features"


def view_kind(view: int) -> str:
    """What a view's file is called: `v` and its number."""
    return f"v{view}"


def kinds_of(views: int) -> tuple[str, ...]:
    """What an image has with this many views; 0 is frozen features alone."""
    return (FEATURES, *(view_kind(view) for view in range(views)))


def file_of(digest: str, kind: str) -> Path:
    """Path under a key's folder; `kind` is `features`, or `v` and the number of a view."""
    return Path(digest[:2]) / f"{digest}.{kind}.npy"


def cached_digests(folder: Path) -> frozenset[str]:
    """Digests of all images with any activation, or an unfinished one, under any key; none where there is no folder."""
    return frozenset(path.name.partition(".")[0] for end in (".npy", UNFINISHED) for path in folder.glob(f"*/*/*{end}"))


def activation_bytes(folder: Path, digests: Iterable[str]) -> dict[str, int]:
    """Bytes of each image's files under all keys; images without any are left out."""
    sizes: dict[str, int] = {}
    for digest in digests:
        found = [path.stat().st_size for path in _files(folder, digest)]
        if found:
            sizes[digest] = sum(found)
    return sizes


def forget_activations(folder: Path, digests: Collection[str]) -> int:
    """Delete every key's files of these images; how many there were. Again, or without a folder, it deletes nothing.

    What killed writers left unfinished of any image goes too, and of these what is being written now.
    """
    deleted = 0
    for digest in digests:
        for path in _files(folder, digest):
            path.unlink(missing_ok=True)
            deleted += 1
        for path in folder.glob(f"*/{digest[:2]}/{digest}.*{UNFINISHED}"):
            path.unlink(missing_ok=True)
    oldest = time.time() - STALE_AFTER_S
    for path in folder.glob(f"*/*/*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if path.stat().st_mtime < oldest:
                path.unlink()
    return deleted


def holds_kinds(folder: Path, digest: str, views: int) -> bool:
    """Whether the folder of one key holds an image's frozen features and its first views."""
    return all((folder / file_of(digest, kind)).exists() for kind in kinds_of(views))


def forget_beyond(folder: Path, views: Mapping[str, int]) -> int:
    """Delete from the folder of one key what images, by digest, have beyond these views; how many files there were."""
    deleted = 0
    for digest, count in views.items():
        wanted = {file_of(digest, kind).name for kind in kinds_of(count)}
        for path in (folder / digest[:2]).glob(f"{digest}.*.npy"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                deleted += 1
    return deleted


def _files(folder: Path, digest: str) -> Iterator[Path]:
    return folder.glob(f"*/{digest[:2]}/{digest}.*.npy")


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
