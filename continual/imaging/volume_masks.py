"""Masks of volumes: a class number for every voxel, read, checked and packed; knows nothing of subjects or models.

The same rules as for masks of pictures; beside them, a mask must lie on its volume's grid, whatever order its own file
has its axes in.
"""

import numpy as np
from jaxtyping import Int64, UInt8

from continual.domain.errors import QualityError, UnreadableImageError
from continual.domain.samples import IGNORED, MOST_MASK_CLASSES
from continual.imaging.masks import class_numbers, outside_ignored, require_seen
from continual.imaging.nifti import NiftiFile, plain_affine, read_nifti, write_nifti
from continual.imaging.volumes import DecodedVolume, is_volume
from continual.imaging.voxel_grids import Spacing, VoxelGrid

VolumeMask = UInt8[np.ndarray, "x y z"]

_LARGEST_NUMBER = 65535


def volume_mask_for(
    volume: DecodedVolume, mask: bytes, field_of_view: bytes | None = None, most_classes: int = MOST_MASK_CLASSES
) -> VolumeMask:
    """Class numbers for every voxel of a volume, in its canonical order; `IGNORED` where the field of view is 0.

    Both files are NIfTI and lie on the volume's grid. Raises UnreadableImageError or QualityError for any other file,
    for a class number above `most_classes`, and for a mask that leaves no voxel to learn from.
    """
    classes = class_numbers(_numbers_for(volume, mask, "mask"), most_classes)
    if field_of_view is not None:
        classes = outside_ignored(classes, _numbers_for(volume, field_of_view, "field of view") != 0)
    return require_seen(classes)


def decode_volume_mask(data: bytes) -> VolumeMask:
    """Class numbers [x, y, z] of a stored mask, as `encode_volume_mask` packed it; UnreadableImageError otherwise."""
    file = read_nifti(data, "mask")
    numbers = file.grid.to_canonical(_whole_numbers(file, "mask"))
    if numbers.max() > IGNORED:
        raise UnreadableImageError(f"the mask holds the value {numbers.max()}, at most {IGNORED} may be; store it anew")
    classes: VolumeMask = numbers.astype(np.uint8)
    return classes


def encode_volume_mask(mask: VolumeMask, spacing_mm: Spacing) -> bytes:
    """Lossless 8-bit NIfTI-1, gzipped, of class numbers and spacing alone; equal masks give equal bytes."""
    return write_nifti(mask, plain_affine(spacing_mm))


def mask_on_grid(mask: VolumeMask, grid: VoxelGrid) -> bytes:
    """A canonical mask as an 8-bit NIfTI file in the order, orientation and place of the file that it was told for."""
    return write_nifti(grid.from_canonical(mask), grid.affine)


def _numbers_for(volume: DecodedVolume, data: bytes, what: str) -> Int64[np.ndarray, "x y z"]:
    """What a file says about each voxel of the volume, in canonical order; refuses one on another grid."""
    if not is_volume(data):
        raise UnreadableImageError(f"the {what} is no NIfTI file ({len(data)} bytes); save it as .nii.gz on its volume")
    file = read_nifti(data, what)
    if not file.grid.same_as(volume.grid):
        raise QualityError(_other_grid(file.grid, volume.grid, what))
    return file.grid.to_canonical(_whole_numbers(file, what))


def _whole_numbers(file: NiftiFile, what: str) -> Int64[np.ndarray, "i j k"]:
    numbers = np.empty(file.grid.shape, dtype=np.int64, order="F")
    for k, plane in enumerate(file.slices()):
        whole = np.isfinite(plane) & (plane == np.rint(plane)) & (plane >= 0) & (plane <= _LARGEST_NUMBER)
        if not whole.all():
            raise QualityError(
                f"the {what} holds the value {plane[~whole][0]:g}, whole numbers from 0 are needed: it is a soft mask "
                "or was interpolated; export it with one number per class"
            )
        numbers[..., k] = plane
    return numbers


def _other_grid(grid: VoxelGrid, volume: VoxelGrid, what: str) -> str:
    here, there = (
        f"{' x '.join(map(str, each.canonical_shape()))} voxels of {' x '.join(map('{:g}'.format, each.spacing_mm))} mm"
        for each in (grid, volume)
    )
    if grid.canonical_shape() == volume.canonical_shape():
        here += f", {grid.apart_mm(volume):.3g} mm off"
    return (
        f"the {what} has {here}, the volume {there}; send the {what} drawn on this volume, or resample it to its grid"
    )
