"""What a memory policy is: a name, what it promises, and an order in which images are worth remembering."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from continual.domain.digests import sha256_bytes
from continual.domain.samples import Sample

Ranked = TypeVar("Ranked")
Features = Callable[[Sequence[str]], Float[np.ndarray, "image feature"]]
"""Frozen features of images by digest, one finite row per digest in the order given."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Most images a memory holds, and most bytes that their stored images take together; 0 bytes set no bound."""

    samples: int
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a memory is chosen from. `seed` keys every order.

    `sizes` maps a digest to the bytes of its stored image and is read only where bytes are bounded; `features` only by
    a policy that needs them.
    """

    samples: Sequence[Sample]
    seed: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    features: Features | None = None


Order = Callable[[Candidates, int], Sequence[str]]
"""Digests of labelled images, the worthiest first; at least the first `most` of the whole order, repeats allowed."""


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """One rule for what a replay memory keeps.

    `nested` promises that a smaller memory is a part of a larger one, as long as no image outgrows the smaller bound in
    bytes. `incremental` promises that choosing again after every experience from what is remembered and what is new
    ends in the same memory as one choice from the whole stream.
    """

    name: str
    summary: str
    order: Order
    nested: bool = False
    incremental: bool = False
    needs_features: bool = False


def rank(seed: int, name: str) -> str:
    """Place of a name in a keyed, uniformly random order that is the same on every machine; smaller comes first."""
    return sha256_bytes(f"{seed}:{name}".encode())


def cells_of(candidates: Candidates) -> list[list[str]]:
    """Digests of the labelled images per (site, class) cell, each cell in order of rank.

    First come a class of every site, then a second one of every site, and so on, in a keyed order that knows no
    alphabet: where places run out within a turn, every site has as many as any other, or one less. One picture may
    stand in two cells: a shared image, a corrected label.
    """
    cells: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sample in candidates.samples:
        if sample.label is not None:
            cells[sample.site, sample.label].add(sample.digest)
    key = partial(rank, candidates.seed)
    labels: dict[str, list[str]] = defaultdict(list)
    for site, label in sorted(cells, key=lambda cell: key("/".join(cell))):
        labels[site].append(label)
    turns = in_turns([[(site, label) for label in labels[site]] for site in sorted(labels, key=key)])
    return [sorted(cells[cell], key=key) for cell in turns]


def in_turns(queues: Sequence[Sequence[Ranked]]) -> Iterator[Ranked]:
    """The first of every queue, then the second of every queue that has one, and so on to the end of the longest."""
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
