"""Volumes on an adapter's own grid: resampled to its spacing, normalised, fitted or cut into patches, and turned back.

A resampled volume spans the same millimetres as the volume it came from, so that resampling its scores to the volume's
own shape is the way back. Knows arrays; knows nothing of networks or files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from continual.domain.errors import LearningError
from continual.learning.views import GAINS, at_shape

MOST_SIDE_VOXELS = 512
"""Longest side of a patch, or of what is classified."""
LONG_SIDE_VOXELS = 1024
"""Volumes of no longer side were never refused, whatever they take: adapters in service learn from them."""
MOST_RESAMPLED_VOXELS = 2**28
"""Most voxels of a volume at the adapter's spacing, a gibibyte, where a side is longer than `LONG_SIDE_VOXELS`."""
MOST_SPACING_MM = 100.0
MOST_PATCHES = 2**16
"""Patches of one volume are numbered below this; a view's number is its patch's plus this many per variant."""
WINDOW_PERCENT = (0.5, 99.5)
"""Intensities are clipped to these percentiles before they are normalised: a few bright voxels decide nothing."""

Values = Float[np.ndarray, "x y z"]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Intensities of any unit in canonical axes (right, anterior, superior), and millimetres between voxel centres."""

    values: Values
    spacing_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or not self.values.size:
            raise LearningError(f"a volume has the shape {self.values.shape}; give 3 axes of at least 1 voxel")
        if not all(0 < step <= MOST_SPACING_MM for step in self.spacing_mm):
            raise LearningError(
                f"a volume's spacing is {self.spacing_mm} mm, must lie above 0 and at most {MOST_SPACING_MM:g}; "
                "correct its header"
            )


@dataclass(frozen=True, slots=True)
class VolumeGrid:
    """What an adapter of volumes sees: `size` voxels of `spacing_mm` millimetres along right, anterior, superior.

    A classified volume is cropped or padded around its centre to `size`; a segmented one is cut into patches of it.
    """

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or not all(0 < step <= MOST_SPACING_MM for step in self.spacing_mm):
            raise LearningError(
                f"the target spacing is {list(self.spacing_mm)} mm; give 3 numbers above 0 and at most "
                f"{MOST_SPACING_MM:g} with --spacing, e.g. 0.5,0.5,2.5"
            )
        if len(self.size) != 3 or not all(1 <= side <= MOST_SIDE_VOXELS for side in self.size):
            raise LearningError(
                f"the volume size is {list(self.size)} voxels; give 3 whole numbers of 1 to {MOST_SIDE_VOXELS} with "
                "--volume-size, e.g. 64,64,16"
            )

    @classmethod
    def from_record(cls, told: Mapping[str, Any]) -> "VolumeGrid":
        """The grid of a record that `dataclasses.asdict` made; LookupError or TypeError where it is none."""
        return cls(tuple(told["spacing_mm"]), tuple(told["size"]))

    def folder(self) -> str:
        """Part of a folder's name that tells this grid from others."""
        return "x".join(str(side) for side in self.size) + "-" + "x".join(f"{step:g}mm" for step in self.spacing_mm)

    def shape_of(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, ...]:
        """Shape of a volume once it has this grid's spacing. LearningError where that is absurdly large."""
        found = tuple(
            max(1, round(count * step / wanted))
            for count, step, wanted in zip(shape, spacing_mm, self.spacing_mm, strict=True)
        )
        if max(found) > LONG_SIDE_VOXELS and math.prod(found) > MOST_RESAMPLED_VOXELS:
            raise LearningError(
                f"a volume of {'x'.join(map(str, shape))} voxels becomes {'x'.join(map(str, found))} at this spacing, "
                f"{math.prod(found)} in all and at most {MOST_RESAMPLED_VOXELS}; release with a wider --spacing"
            )
        return found

    def resampled(self, volume: Volume) -> Float[np.ndarray, "a b c"]:
        """The volume at this grid's spacing, linear between voxels, normalised; coarser grids take local means."""
        normalised = torch.from_numpy(normalise(volume.values))[None, None]
        shape = self.shape_of(volume.values.shape, volume.spacing_mm)
        # What becomes coarser is averaged first: sampling alone would let thin structures come and go with the place.
        coarser = tuple(max(1, round(old / new)) for old, new in zip(volume.values.shape, shape, strict=True))
        if max(coarser) > 1:
            averaged = tuple(
                max(new, old // by) for old, new, by in zip(volume.values.shape, shape, coarser, strict=True)
            )
            normalised = torch.nn.functional.adaptive_avg_pool3d(normalised, averaged)
        return at_shape(normalised[0], shape)[0].numpy()

    def resampled_mask(self, mask: UInt8[np.ndarray, "x y z"], shape: Sequence[int]) -> UInt8[np.ndarray, "a b c"]:
        """A mask brought to a resampled volume's shape, each voxel the number of the nearest: numbers have no mean."""
        places = [
            ((np.arange(wanted) + 0.5) * count / wanted).astype(int)
            for count, wanted in zip(mask.shape, shape, strict=True)
        ]
        resampled: UInt8[np.ndarray, "a b c"] = mask[np.ix_(*places)]
        return resampled

    def centred(self, values: Float[np.ndarray, "a b c"]) -> Values:
        """Cropped or padded with its least value around its centre to this grid's size."""
        corner = [(count - side) // 2 for count, side in zip(values.shape, self.size, strict=True)]
        return self.cut(values, corner, float(values.min()))

    def corners(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Corners of patches that cover a resampled volume, neighbours sharing half; short axes are padded evenly."""
        along = [_starts(count, side) for count, side in zip(shape, self.size, strict=True)]
        found = list(product(*along))
        if len(found) > MOST_PATCHES:
            raise LearningError(
                f"a volume of {'x'.join(map(str, shape))} voxels at the adapter's spacing has {len(found)} patches, "
                f"most {MOST_PATCHES}; release with a wider --spacing or a larger --volume-size"
            )
        return found

    def inside(self, corner: Sequence[int], shape: Sequence[int]) -> bool:
        """Whether the patch at a corner lies within a volume of this shape."""
        return all(0 <= start <= count - side for start, side, count in zip(corner, self.size, shape, strict=True))

    def cut(self, values: np.ndarray, corner: Sequence[int], beyond: float) -> np.ndarray:
        """The patch at a corner, which may lie outside; `beyond` stands where there is no volume."""
        patch = np.full(self.size, beyond, dtype=values.dtype)
        source, target = [], []
        for start, side, count in zip(corner, self.size, values.shape, strict=True):
            first, last = max(start, 0), min(start + side, count)
            source.append(slice(first, last))
            target.append(slice(first - start, last - start))
        patch[tuple(target)] = values[tuple(source)]
        return patch


def normalise(values: np.ndarray) -> Float[np.ndarray, "x y z"]:
    """Mean 0 and standard deviation 1 within robust percentiles; a volume without any contrast is 0 throughout.

    Scanners have no common unit (MRI), and few voxels of metal or flow must not decide what the others become. NaN and
    infinite voxels count as the least finite one.
    """
    exact = values.astype(np.float32)
    finite = np.isfinite(exact)
    if not finite.all():
        exact = np.where(finite, exact, exact[finite].min() if finite.any() else 0.0)
    low, high = np.percentile(exact, WINDOW_PERCENT)
    if high > low:
        exact = np.clip(exact, low, high)
    spread = float(exact.std())
    if spread <= 1e-6 * max(1.0, float(np.abs(exact).max())):
        return np.zeros_like(exact)
    normalised: Float[np.ndarray, "x y z"] = ((exact - exact.mean()) / spread).astype(np.float32)
    return normalised


def mirrored(values: np.ndarray, view: int) -> np.ndarray:
    """A volume as view number `view` mirrors it: bits 1, 2 and 4 of the number are the axes; 0 is identity."""
    axes = [axis for axis in range(3) if view >> axis & 1]
    return np.flip(values, tuple(axes)) if axes else values


def varied(values: Float[np.ndarray, "x y z"], view: int, *, upright: bool = False) -> Float[np.ndarray, "x y z"]:
    """View number `view` of a normalised volume: mirrored, its contrast a little changed; 0 is identity.

    `upright`, its contrast alone: a patient's right is not to become the left.
    """
    turned = values if upright else mirrored(values, view)
    changed: Float[np.ndarray, "x y z"] = turned * np.float32(GAINS[view % len(GAINS)])
    return changed


def as_input(values: Float[np.ndarray, "x y z"]) -> Float[Tensor, "1 x y z"]:
    """What a network is given of normalised values."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None]


def _starts(count: int, side: int) -> list[int]:
    """Where patches of `side` voxels begin along an axis of `count`."""
    if count <= side:
        return [(count - side) // 2]
    step = max(1, side // 2)
    last = count - side
    return [*range(0, last, step), last]
