"""Boxes in training and evaluation, made from masks, and what a box network is given of a draw.

A class's box is the rectangle around its pixels. In training each edge is moved outwards by 0 to 5 pixels of 256, as in
Ma et al. 2024 (0 to 20 of 1024): users draw no tight boxes. The move depends on image, class and view alone, so
that every epoch, machine and strategy asks the same. In evaluation the box is the mask's own: an oracle's prompt, the
field's convention for such models. Knows cached masks; knows nothing of networks.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from continual.domain.boxes import Box
from continual.domain.samples import IGNORED, Sample
from continual.learning.segmentation.tile_cache import TileCache

MOST_MOVED_SHARE = 20 / 1024
"""Furthest that training moves an edge, as a share of the square's side."""


def box_around(found: Bool[np.ndarray, "height width"]) -> Box | None:
    """The rectangle around what is found; None where nothing is."""
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    if not rows.size:
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def boxes_of(mask: UInt8[np.ndarray, "height width"], classes: int) -> dict[int, Box]:
    """The box of every class that the mask holds, by class number."""
    found = {number: box_around(mask == number) for number in range(1, classes + 1)}
    return {number: box for number, box in found.items() if box is not None}


def filled_boxes(mask: UInt8[np.ndarray, "height width"], classes: int) -> UInt8[np.ndarray, "height width"]:
    """The mask of who fills every class's box and looks no further, larger boxes first."""
    filled = np.zeros_like(mask)
    boxes = boxes_of(mask, classes)
    for number, box in sorted(boxes.items(), key=lambda item: -_area(item[1])):
        filled[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = number
    return filled


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def loosened(box: Box, key: str, side: int) -> Box:
    """The box with every edge moved outwards, within the square, by up to `MOST_MOVED_SHARE`, as `key` decides."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    left, top, right, bottom = np.random.default_rng(seed).uniform(0, MOST_MOVED_SHARE * side, size=4)
    return Box(
        max(0.0, box.left - left), max(0.0, box.top - top), min(side, box.right + right), min(side, box.bottom + bottom)
    )


def prompt_of(box: Box, number: int) -> Float[Tensor, "5"]:
    """A box of the square and a class number as a network is given them: first and last pixel, place of the class."""
    return torch.tensor([box.left, box.top, max(box.left, box.right - 1), max(box.top, box.bottom - 1), number - 1])


def box_inputs(
    cache: TileCache, sample: Sample, view: int, number: int, *, tight: bool = False
) -> tuple[Float[Tensor, "token width"], Float[Tensor, "5"]]:
    """What a box network is given of one class in one view of an image whose mask holds it."""
    tokens = torch.from_numpy(cache.tokens(sample.digest, view)).float()
    side = cache.grid.image_size
    box = box_around(cache.mask(sample, view) == number) or Box(0, 0, side, side)
    if not tight:
        box = loosened(box, f"{sample.digest}:{number}:{view}", side)
    return tokens, prompt_of(box, number)


def box_target(cache: TileCache, sample: Sample, view: int, number: int) -> Int[Tensor, "side side"]:
    """1 for the class's pixels, 0 for all others, `IGNORED` where nobody is scored."""
    mask = cache.mask(sample, view)
    target = np.where(mask == IGNORED, IGNORED, mask == number)
    return torch.from_numpy(target.astype(np.int64))
