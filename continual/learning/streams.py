"""Experiences for Avalanche: lazy datasets over cached activations, drawn with class-and-site balance.

Knows Avalanche's dataset classes; knows nothing of networks or of how a draw is used.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from torch import Tensor
from torch.utils.data import Dataset

from continual.domain.errors import StreamError
from continual.domain.samples import Sample
from continual.learning.activations import ActivationCache
from continual.learning.segmentation.dense_cache import DenseCache
from continual.learning.segmentation.draws import (
    TileDataset,
    TileDraw,
    box_draws,
    box_examples,
    inputs_of,
    tile_draws,
    tile_examples,
)
from continual.learning.segmentation.tile_cache import Cache, TileCache

RARE_CLASS_BOOST = 12.0
"""A rare class's sample weighs at most this many times the uniform weight, before weights are scaled to sum to 1."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One training example: which image, which cached view of it, which class."""

    digest: str
    view: int
    target: int


AnyDraw = Draw | TileDraw
Example = tuple[tuple[Tensor, ...], Tensor]
"""What a network is given of one image or tile, and its target; without a dimension for the batch."""


class DrawnDataset(Dataset[tuple[Tensor, int, int]]):
    """Draws as (tokens, target, number of the draw), read from the cache when asked for and never kept.

    Numbers run on from `first`, so that in one update every draw, new or replayed, has a number of its own.
    """

    def __init__(self, draws: Sequence[Draw], cache: ActivationCache, first: int = 0) -> None:
        self._draws = tuple(draws)
        self._cache = cache
        self._first = first
        self.targets = [draw.target for draw in self._draws]

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        draw = self._draws[index]
        (tokens,) = self._cache.inputs(draw.digest, draw.view)
        return tokens, draw.target, self._first + index


def asked_by(draw: AnyDraw) -> tuple[str, ...]:
    """All that decides what a network is given of a draw: two draws with the same are one question."""
    if isinstance(draw, Draw) or not draw.number:
        return draw.digest, str(draw.view)
    # A box comes from the mask, and one picture at two sites may have two.
    return draw.digest, str(draw.view), str(draw.number), str(draw.sample.mask)


def question(cache: Cache, draw: AnyDraw) -> tuple[Tensor, ...]:
    """What a network is given of a draw, without a dimension for the batch."""
    if isinstance(cache, TileCache) and isinstance(draw, TileDraw):
        return inputs_of(cache, draw)
    return cache.inputs(draw.digest, draw.view)


def draws_for(
    cache: Cache, samples: Sequence[Sample], classes: Sequence[str], count: int, views: int, seed: int
) -> Sequence[AnyDraw]:
    """`count` balanced draws, of whole images or of tiles, as the cache's task asks for."""
    if isinstance(cache, TileCache) and cache.prompted:
        return box_draws(cache, samples, classes, count, views, seed)
    if isinstance(cache, DenseCache):
        return tile_draws(cache, samples, classes, count, views, seed)
    return balanced_draws(samples, classes, count, views, seed)


def examples_of(cache: Cache, samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[Example]:
    """Every image as it is, or every tile that anything can be learnt from; images without an answer are left out."""
    if isinstance(cache, TileCache) and cache.prompted:
        yield from box_examples(cache, samples)
        return
    if isinstance(cache, DenseCache):
        yield from tile_examples(cache, samples)
        return
    for sample in samples:
        if sample.label in classes:
            yield cache.inputs(sample.digest, 0), torch.tensor(classes.index(str(sample.label)))


def balanced_draws(
    samples: Sequence[Sample], classes: Sequence[str], count: int, views: int, seed: int
) -> tuple[Draw, ...]:
    """`count` draws in which every (site, class) cell weighs the same, bounded for cells of very few samples.

    Raises StreamError when there are fewer than two classes, no sample carries a label, or one carries a label outside
    `classes`.
    """
    if len(classes) < 2:
        raise StreamError(f"the adapter has {len(classes)} class, needs 2 to tell apart; send labels of both")
    labelled = [sample for sample in samples if sample.label is not None]
    if not labelled:
        raise StreamError(f"none of {len(samples)} training samples has a label; send labels, then update again")
    position = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(sample.label) for sample in labelled} - set(position))
    if unknown:
        raise StreamError(f"labels {unknown} are not among the adapter's classes {list(classes)}; correct the labels")
    random = np.random.default_rng(seed)
    chosen = random.choice(len(labelled), size=count, p=_balanced_weights(labelled))
    turned = random.integers(views, size=count)
    return tuple(
        Draw(labelled[index].digest, int(view), position[str(labelled[index].label)])
        for index, view in zip(chosen, turned, strict=True)
    )


def as_dataset(draws: Sequence[AnyDraw], cache: Cache, first: int = 0) -> Any:
    """The draws, numbered from `first`, as Avalanche's task-aware dataset with task label 0."""
    dataset: TileDataset | DrawnDataset
    # `draws_for` made the draws for this very cache.
    if isinstance(cache, DenseCache):
        dataset = TileDataset(cast("Sequence[TileDraw]", draws), cache, first)
    else:
        dataset = DrawnDataset(cast("Sequence[Draw]", draws), cache, first)
    return _make_taskaware_classification_dataset(dataset, targets=dataset.targets, task_labels=0)


def as_experience(draws: Sequence[AnyDraw], cache: Cache) -> Any:
    """One Avalanche training experience that holds the draws."""
    benchmark = with_task_labels(benchmark_from_datasets(train=[as_dataset(draws, cache)]))
    return benchmark.train_stream[0]


def _balanced_weights(samples: Sequence[Sample]) -> np.ndarray:
    cells = Counter((sample.site, sample.label) for sample in samples)
    uniform = 1.0 / len(samples)
    wanted = np.array([1.0 / (len(cells) * cells[sample.site, sample.label]) for sample in samples])
    bounded = np.minimum(wanted, RARE_CLASS_BOOST * uniform)
    weights: np.ndarray = bounded / bounded.sum()
    return weights
