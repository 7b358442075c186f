"""Draws of tiles: which are drawn how often, and what a draw looks like to Avalanche. A volume's tiles are its patches.

Knows the cache of tiles; knows nothing of networks or of how a draw is used.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from continual.domain.errors import StreamError
from continual.domain.samples import IGNORED, Sample
from continual.learning.segmentation.boxes import box_inputs, box_target
from continual.learning.segmentation.dense_cache import DenseCache
from continual.learning.segmentation.tile_cache import TileCache

FOREGROUND_SHARE = 0.5
"""Tiles that hold any class but the background make up at least this share of a site's draws."""
MOST_EXAMPLES = 64
"""Most tiles that the importance of weights is measured on, evenly spread over the samples."""


@dataclass(frozen=True, slots=True)
class TileDraw:
    """One training example: which sample, which cached view of one of its tiles.

    `number` is the class that a box asks for; 0 where all classes are told at once.
    """

    sample: Sample
    view: int
    number: int = 0

    @property
    def digest(self) -> str:
        """The image's digest."""
        return self.sample.digest


class TileDataset(Dataset[tuple[Tensor | int, ...]]):
    """Draws as (first input, mask, number of the draw, other inputs), read from the cache when asked for, never kept.

    Numbers run on from `first`, so that in one update every draw, new or replayed, has a number of its own.
    """

    def __init__(self, draws: Sequence[TileDraw], cache: DenseCache, first: int = 0) -> None:
        self._draws = tuple(draws)
        self._cache = cache
        self._first = first
        # Avalanche keeps a class per example for its own statistics; a tile has many, so all are told alike.
        self.targets = [0] * len(self._draws)

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> tuple[Tensor | int, ...]:
        draw = self._draws[index]
        first, *others = inputs_of(self._cache, draw)
        return first, _target(self._cache, draw), self._first + index, *others


def inputs_of(cache: DenseCache, draw: TileDraw) -> tuple[Tensor, ...]:
    """What a network is given of a draw: a tile's or patch's inputs, or tokens and a box's prompt."""
    if draw.number and isinstance(cache, TileCache):
        return box_inputs(cache, draw.sample, draw.view, draw.number)
    return cache.inputs(draw.digest, draw.view)


def tile_draws(
    cache: DenseCache, samples: Sequence[Sample], classes: Sequence[str], count: int, views: int, seed: int
) -> tuple[TileDraw, ...]:
    """`count` draws in which every site weighs the same, and in a site every pixel that can be learnt from.

    Tiles that hold a class are raised to half of a site's draws where they are fewer; tiles outside the field of view
    are never drawn. Raises StreamError when no sample has a mask, a mask has nothing inside the field of view, or one
    holds a number above the number of classes.
    """
    masked, per_sample = _masked(cache, samples, classes)
    contents = np.concatenate(per_sample)
    places = [(sample, tile) for sample, found in zip(masked, per_sample, strict=True) for tile in range(len(found))]
    sites = np.array([sample.site for sample, _ in places])
    weights = np.zeros(len(places))
    for site in sorted(set(sites)):
        weights[sites == site] = _site_weights(contents[sites == site])
    if not weights.sum():
        raise StreamError(f"none of {len(masked)} masks has a pixel inside the field of view; correct the masks")
    random = np.random.default_rng(seed)
    chosen = random.choice(weights.size, size=count, p=weights / weights.sum())
    turned = random.integers(views, size=count)
    return tuple(
        TileDraw(sample, cache.view(sample.digest, tile, int(variant)))
        for (sample, tile), variant in zip((places[place] for place in chosen), turned, strict=True)
    )


def tile_examples(
    cache: DenseCache, samples: Sequence[Sample]
) -> Iterator[tuple[tuple[Tensor, ...], Int[Tensor, "*position"]]]:
    """Plain tiles that anything can be learnt from, with their masks; at most `MOST_EXAMPLES`, the same each time."""
    draws = [
        TileDraw(sample, cache.view(sample.digest, tile, 0))
        for sample in samples
        if sample.mask is not None
        for tile in np.flatnonzero(cache.contents(sample)[:, :IGNORED].sum(axis=1)).tolist()
    ]
    for draw in _some_of(draws):
        yield cache.inputs(draw.digest, draw.view), _target(cache, draw)


def box_draws(
    cache: TileCache, samples: Sequence[Sample], classes: Sequence[str], count: int, views: int, seed: int
) -> tuple[TileDraw, ...]:
    """`count` draws of a class in an image whose mask holds it: sites weigh the same, in a site its classes, in a class
    its images.

    Raises StreamError when no sample has a mask, no mask holds a class, or one holds a number above that of classes.
    """
    masked, per_sample = _masked(cache, samples, classes)
    held = np.concatenate(per_sample)[:, 1 : len(classes) + 1] > 0
    places, numbers = (found.tolist() for found in np.nonzero(held))
    cells = [(masked[place].site, number) for place, number in zip(places, numbers, strict=True)]
    if not cells:
        raise StreamError(f"none of {len(masked)} masks holds a class to draw a box around; correct the masks")
    sizes, sites = Counter(cells), Counter(site for site, _ in set(cells))
    weights = np.array([1.0 / (len(sites) * sites[cell[0]] * sizes[cell]) for cell in cells])
    random = np.random.default_rng(seed)
    chosen = random.choice(len(cells), size=count, p=weights / weights.sum())
    turned = random.integers(views, size=count)
    return tuple(
        TileDraw(masked[places[index]], int(view), numbers[index] + 1)
        for index, view in zip(chosen, turned, strict=True)
    )


def box_examples(
    cache: TileCache, samples: Sequence[Sample]
) -> Iterator[tuple[tuple[Float[Tensor, "token width"], Float[Tensor, "5"]], Int[Tensor, "side side"]]]:
    """Every class of every image under its mask's own box; at most `MOST_EXAMPLES`, the same each time."""
    draws = [
        TileDraw(sample, 0, int(number))
        for sample in samples
        if sample.mask is not None
        for number in np.flatnonzero(cache.contents(sample).sum(axis=0)[:IGNORED])
        if number
    ]
    for draw in _some_of(draws):
        yield box_inputs(cache, draw.sample, draw.view, draw.number, tight=True), _target(cache, draw)


def _some_of(draws: Sequence[TileDraw]) -> list[TileDraw]:
    """At random: of every so-many-th draw all may be of one class, or of one corner."""
    chosen = np.random.default_rng(0).choice(len(draws), min(len(draws), MOST_EXAMPLES), replace=False)
    return [draws[place] for place in np.sort(chosen)]


def check_mask_numbers(cache: DenseCache, samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Raise StreamError where a sample's mask, to be learnt or judged by, holds a number above that of classes."""
    for sample in samples:
        if sample.mask is not None:
            _check_numbers(cache.contents(sample), classes)


def _target(cache: DenseCache, draw: TileDraw) -> Int[Tensor, "*position"]:
    if draw.number and isinstance(cache, TileCache):
        return box_target(cache, draw.sample, draw.view, draw.number)
    return torch.from_numpy(cache.mask(draw.sample, draw.view)).long()


def _masked(
    cache: DenseCache, samples: Sequence[Sample], classes: Sequence[str]
) -> tuple[list[Sample], list[Int[np.ndarray, "tile 256"]]]:
    """The samples with masks, and what the tiles of each hold."""
    masked = [sample for sample in samples if sample.mask is not None]
    if not masked:
        raise StreamError(f"none of {len(samples)} training samples has a mask; send masks, then update again")
    per_sample = [cache.contents(sample) for sample in masked]
    _check_numbers(np.concatenate(per_sample), classes)
    return masked, per_sample


def _check_numbers(contents: Int[np.ndarray, "tile 256"], classes: Sequence[str]) -> None:
    present = np.flatnonzero(contents.sum(axis=0)[:IGNORED])
    if present.size and present[-1] > len(classes):
        raise StreamError(
            f"masks hold class number {present[-1]}, the adapter has {len(classes)} besides the background: "
            f"{', '.join(classes)}; correct the masks"
        )


def _site_weights(contents: Int[np.ndarray, "tile 256"]) -> Float[np.ndarray, "tile"]:
    """Weights of one site's tiles, summing to 1; all 0 where nothing can be learnt from."""
    informed: Float[np.ndarray, "tile"] = contents[:, :IGNORED].sum(axis=1).astype(float)
    holding = contents[:, 1:IGNORED].sum(axis=1) > 0
    total, held = informed.sum(), informed[holding].sum()
    if not total:
        return informed
    weights: Float[np.ndarray, "tile"] = informed / total
    if 0 < held < FOREGROUND_SHARE * total:
        weights = np.where(holding, weights * FOREGROUND_SHARE * total / held, 0.0) + np.where(
            holding, 0.0, weights * (1 - FOREGROUND_SHARE) * total / (total - held)
        )
    return weights
