"""Where a volume's voxels lie: axes, spacing, positions in millimetres; knows nothing of files or of what voxels hold.

The canonical order of axes is RAS+: x grows to the patient's right, y to the front, z to the head (nibabel's and
BIDS's convention). Voxels are reordered and mirrored, never interpolated.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

Voxels = Shaped[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]
Spacing = tuple[float, float, float]

SAME_PLACE_VOXELS = 0.25
"""Farthest that a corner of two grids called the same may lie apart, in sides of the smallest voxel: headers round."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxelGrid:
    """A file's own grid: voxels per axis in the file's order, and the affine from voxel numbers to RAS+ millimetres."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def axes(self) -> str:
        """Where each of the file's axes points to, by its nearest direction: `LPS` goes left, to the back, up."""
        import nibabel as nib

        return "".join(nib.aff2axcodes(self.affine))

    @property
    def spacing_mm(self) -> Spacing:
        """Distance of neighbouring voxels along canonical x, y and z, in millimetres, to five significant digits."""
        sides = np.linalg.norm(self.affine[:3, :3], axis=0)
        x, y, z = (_rounded(float(sides[axis])) for axis in self._file_axes())
        return x, y, z

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def oblique_degrees(self) -> float:
        """Largest angle between one of the file's axes and the direction it is named after, to a tenth; 0 to 90."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        nearest = np.abs(directions[:, self._file_axes()]).diagonal()
        return round(float(np.degrees(np.arccos(np.clip(nearest.min(), 0, 1)))), 1)

    def to_canonical(self, voxels: Voxels) -> Voxels:
        """The file's voxels [i, j, k] in canonical order [x, y, z]."""
        import nibabel as nib

        return np.ascontiguousarray(nib.apply_orientation(voxels, self._orientation()))

    def from_canonical(self, voxels: Voxels) -> Voxels:
        """Voxels in canonical order [x, y, z] in the file's own order [i, j, k]."""
        import nibabel as nib

        canonical = nib.orientations.axcodes2ornt(("R", "A", "S"))
        back = nib.orientations.ornt_transform(canonical, self._orientation())
        return np.ascontiguousarray(nib.apply_orientation(voxels, back))

    def corners_mm(self) -> Float[np.ndarray, "2 2 2 3"]:
        """Positions of the centres of the eight corner voxels, in canonical order."""
        steps = np.stack(np.meshgrid(*([0, side - 1] for side in self.shape), indexing="ij"), axis=-1)
        places = steps @ self.affine[:3, :3].T + self.affine[:3, 3]
        return np.stack([self.to_canonical(places[..., axis]) for axis in range(3)], axis=-1)

    def canonical_shape(self) -> tuple[int, int, int]:
        """Voxels along canonical x, y and z."""
        x, y, z = (self.shape[axis] for axis in self._file_axes())
        return x, y, z

    def apart_mm(self, other: "VoxelGrid") -> float:
        """Largest distance between a corner and the other grid's same corner, in millimetres; both of one shape."""
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=-1).max())

    def same_as(self, other: "VoxelGrid") -> bool:
        """Whether both grids hold the same places once in canonical order, whatever order their files are in."""
        if self.canonical_shape() != other.canonical_shape():
            return False
        return self.apart_mm(other) <= SAME_PLACE_VOXELS * min(*self.spacing_mm, *other.spacing_mm)

    def _orientation(self) -> Float[np.ndarray, "3 2"]:
        import nibabel as nib

        orientation: Float[np.ndarray, "3 2"] = nib.io_orientation(self.affine)
        return orientation

    def _file_axes(self) -> list[int]:
        """For canonical x, y and z, the file's axis that lies along it."""
        return [int(axis) for axis in np.argsort(self._orientation()[:, 0])]


def _rounded(length_mm: float) -> float:
    # Twice: 0.703125 with a header's rounding noise lies on either side of a half in the sixth digit, and what is one
    # spacing must be one number. At six digits such dyadic fractions agree, or agree once they are cut to five.
    return float(f"{float(f'{length_mm:.6g}'):.5g}")
