"""Replay memory: which past samples are kept, as digests only; knows nothing of images or training."""

from collections import defaultdict
from collections.abc import Sequence

from continual.domain.digests import sha256_bytes
from continual.domain.samples import Sample


def select_memory(samples: Sequence[Sample], capacity: int, seed: int) -> tuple[str, ...]:
    """Digests of at most `capacity` labelled images, each once, spread evenly over (site, class) cells.

    Every cell gets an equal share; what a small cell leaves over goes to the others. Within a cell the order is a
    keyed hash, so a smaller capacity keeps a subset of a larger one and the choice is the same on every machine.
    """
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample in samples:
        if sample.label is not None:
            cells[sample.site, sample.label].append(sample.digest)
    queues = [sorted(set(cells[cell]), key=lambda digest: _rank(seed, digest)) for cell in sorted(cells)]
    # One picture may stand in two cells (a shared image, a corrected label); it is kept for the first that offers it.
    kept: dict[str, None] = {}
    turn = 0
    while len(kept) < capacity and any(turn < len(queue) for queue in queues):
        for queue in queues:
            if turn < len(queue) and len(kept) < capacity:
                kept[queue[turn]] = None
        turn += 1
    return tuple(kept)


def _rank(seed: int, digest: str) -> str:
    return sha256_bytes(f"{seed}:{digest}".encode())
