"""Volumes: NIfTI bytes to values in canonical axes, and back to what is stored; knows nothing of subjects or folders.

What is stored of a volume is a gzipped NIfTI-1 file of its values and spacing alone, in canonical order.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from continual.domain.errors import UnreadableImageError
from continual.imaging.decoding import ImageFormat, sniff_format
from continual.imaging.nifti import NiftiFile, plain_affine, read_nifti, smallest_type, write_nifti
from continual.imaging.voxel_grids import Spacing, VoxelGrid

Values = Float32[np.ndarray, "x y z"]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedVolume:
    """One volume in RAS+ order, shape [x, y, z]: x grows to the patient's right, y to the front, z to the head.

    `values` are finite, scaled as the file says, in the file's own unit (HU in CT, arbitrary in MR). `spacing_mm` is
    the distance between neighbouring voxels along x, y and z. `tags` hold names from an allow-list only. `grid` is how
    the file had the voxels, for answers that must lie on it.
    """

    values: Values
    spacing_mm: Spacing
    grid: VoxelGrid
    tags: dict[str, str | float] = field(default_factory=dict)


def is_volume(data: bytes) -> bool:
    """Whether the first bytes say that this is a NIfTI file; it may still be damaged."""
    return sniff_format(data) is ImageFormat.NIFTI


def decode_volume(data: bytes) -> DecodedVolume:
    """Values and spacing of one NIfTI file given as bytes, plain or gzipped; one that is stored, too.

    Raises UnreadableImageError: not NIfTI, damaged, larger than the limits, not of 3 dimensions, without orientation,
    or with voxels that are no finite number.
    """
    file = read_nifti(data)
    values = file.grid.to_canonical(_finite_values(file))
    return DecodedVolume(values, file.grid.spacing_mm, file.grid, _tags(file))


def encode_volume(volume: DecodedVolume) -> bytes:
    """Lossless NIfTI-1, gzipped: values in 8 or 16 bits where they fit, spacing, and nothing else of the source.

    Equal values and spacing give equal bytes with the same libraries.
    """
    return write_nifti(smallest_type(volume.values), plain_affine(volume.spacing_mm))


def _finite_values(file: NiftiFile) -> Values:
    values = np.empty(file.grid.shape, dtype=np.float32, order="F")
    for k, plane in enumerate(file.slices()):
        with np.errstate(all="ignore"):
            # 0 added: -0 and 0 are one value and must have one digest.
            values[..., k] = plane + 0.0
    broken = int(np.count_nonzero(~np.isfinite(values)))
    if broken:
        raise UnreadableImageError(
            f"{broken} of the volume's {values.size} voxels are not finite 32-bit numbers, 0 may be; set voxels "
            "without a value, outside the scanned region for example, to the background's value"
        )
    return values


def _tags(file: NiftiFile) -> dict[str, str | float]:
    x, y, z = file.grid.canonical_shape()
    spacing = file.grid.spacing_mm
    return {
        "format": "NIFTI",
        "width": float(x),
        "height": float(y),
        "depth": float(z),
        "spacing_x_mm": spacing[0],
        "spacing_y_mm": spacing[1],
        "spacing_z_mm": spacing[2],
        "stored_axes": file.grid.axes,
        "oblique_degrees": file.grid.oblique_degrees,
        "voxel_type": file.stored.dtype.name,
    }
