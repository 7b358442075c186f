"""NIfTI-1 and NIfTI-2, plain or gzipped, in and out; knows nothing of subjects, classes or what is fit to learn from.

Everything that would take memory is held against a limit before it is unpacked. Of a header, the grid, the type of its
voxels and their scaling are read; its texts and extensions, which can hold names, are neither read nor written. Source:
the NIfTI-1.1 and NIfTI-2 headers (https://nifti.nimh.nih.gov).
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Num
from numpy.typing import NDArray

from continual.domain.errors import UnreadableImageError
from continual.imaging.voxel_grids import Affine, Spacing, VoxelGrid

MAX_VOXELS = 2**27
"""Most voxels that are decoded, 512 x 512 x 512; they take 4 bytes each in memory, up to 8 more while they are read."""
MAX_VOLUME_SIDE = 4096
"""Most voxels along one axis."""
MIN_VOLUME_SIDE = 4
"""Fewest voxels along any axis: what has fewer slices is a picture."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Largest header with its extensions."""
LONGEST_SPACING_MM = 100.0
SHORTEST_SPACING_MM = 1e-5
"""Distances between voxels outside these are a header's mistake."""

_GZIP = b"\x1f\x8b"
_LARGEST_HEADER = 540  # NIfTI-2
_TRAILING_BYTES = 1024 * 1024  # some writers pad
_COMPRESS_LEVEL = 4
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unit code: unknown (taken as mm), metre, millimetre, micron
_STORED_TYPES = (np.uint8, np.int16, np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class NiftiFile:
    """One file's voxels [i, j, k] in its own order and as stored, with the line that turns them into values."""

    stored: Num[np.ndarray, "i j k"]
    slope: float
    intercept: float
    grid: VoxelGrid

    def slices(self) -> Iterator[Float64[np.ndarray, "i j"]]:
        """The values, one k after the other: in double precision a whole volume would take twice its memory."""
        for k in range(self.stored.shape[2]):
            # What overflows or is no number is found in the values, not in warnings.
            with np.errstate(all="ignore"):
                plane = self.stored[..., k].astype(np.float64) * self.slope + self.intercept
            yield plane


def read_nifti(data: bytes, what: str = "volume") -> NiftiFile:
    """The voxels and grid of one file of three dimensions; a fourth is dropped where it has one entry.

    Raises UnreadableImageError, calling the file `what`: damaged, cut short, larger than the limits, colour or complex
    voxels, other dimensions, or no orientation.
    """
    try:
        return _read(data, what)
    except UnreadableImageError:
        raise
    # nibabel and zlib raise their own kinds on damaged files, and their texts can quote the header.
    except Exception as error:  # noqa: BLE001
        kind = type(error).__name__
        raise UnreadableImageError(
            f"the {what} cannot be decoded ({kind}): damaged or cut short; export it again as NIfTI"
        ) from None


def write_nifti(voxels: Num[np.ndarray, "i j k"], affine: Affine) -> bytes:
    """A gzipped NIfTI-1 file without texts, extensions or times; `affine` as in `VoxelGrid`, positions in millimetres.

    Equal voxels and affines give equal bytes with the same libraries. Voxels are of a type that NIfTI knows.
    """
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    body = np.asarray(voxels, dtype=header.get_data_dtype()).tobytes(order="F")
    # 4 zero bytes: no extension. wbits of gzip: no name and time 0.
    return zlib.compress(header.binaryblock + bytes(4) + body, _COMPRESS_LEVEL, zlib.MAX_WBITS | 16)


def plain_affine(spacing_mm: Spacing) -> Affine:
    """The affine of a canonical grid that starts at 0: where in the scanner it lay is not told."""
    return np.diag([*spacing_mm, 1.0])


def smallest_type(values: Num[np.ndarray, "x y z"]) -> Num[np.ndarray, "x y z"]:
    """The same values in 8 or 16 bits where they are whole and fit, else as they are."""
    low, high = float(values.min()), float(values.max())
    for kind in _STORED_TYPES:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            narrow = values.astype(kind)
            return narrow if np.array_equal(narrow, values) else values
    return values


def _read(data: bytes, what: str) -> NiftiFile:
    header = _header(_unpacked(data, _LARGEST_HEADER), what)
    shape = _shape(header, what)
    kind = _voxel_type(header, what)
    offset = _offset(header, what)
    count = int(np.prod(shape, dtype=np.int64))
    needed = offset + count * kind.itemsize
    whole = _unpacked(data, needed + _TRAILING_BYTES + 1)
    if not needed <= len(whole) <= needed + _TRAILING_BYTES:
        found = "more" if len(whole) > needed else str(len(whole))
        raise UnreadableImageError(
            f"the {what} holds {found} bytes, its header states {needed}: cut short or damaged; export it again"
        )
    stored = np.frombuffer(whole, dtype=kind, count=count, offset=offset).reshape(shape, order="F")
    slope, intercept = _scaling(header, what)
    return NiftiFile(stored, slope, intercept, VoxelGrid(shape, _affine(header, what)))


def _unpacked(data: bytes, most_bytes: int) -> bytes:
    """The first bytes of a file, inflated where it is gzipped; when all of it is asked for, its checksum is checked."""
    if not data.startswith(_GZIP):
        return data[:most_bytes]
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        return packed.read(most_bytes)


def _header(head: bytes, what: str) -> Any:
    import nibabel as nib

    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        if len(head) >= size:
            # check=False: nibabel's own check prints what it finds to standard error.
            header = kind(head[:size], check=False)
            magic = bytes(header["magic"].tobytes())
            if magic.startswith((b"n+1\0", b"n+2\0")):
                return header
            if magic.startswith((b"ni1\0", b"ni2\0")):
                raise UnreadableImageError(
                    f"the {what} is one half of a pair of .hdr and .img; convert the pair to one .nii.gz"
                )
    raise UnreadableImageError(f"the {what} is no NIfTI file, or cut short; save it as .nii or .nii.gz")


def _shape(header: Any, what: str) -> tuple[int, int, int]:
    dimensions = int(header["dim"][0])
    sides = [int(side) for side in header["dim"][1 : dimensions + 1]] if 1 <= dimensions <= 7 else []
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    named = " x ".join(map(str, sides)) or f"{dimensions} dimensions"
    if len(sides) > 3:
        raise UnreadableImageError(
            f"the {what} is {named}, one volume of 3 dimensions is taken; split it and send one time point or channel"
        )
    if len(sides) < 3 or min(sides) < MIN_VOLUME_SIDE:
        raise UnreadableImageError(
            f"the {what} is {named} voxels, each side needs {MIN_VOLUME_SIDE}; send single slices as PNG or DICOM"
        )
    voxels = sides[0] * sides[1] * sides[2]
    if max(sides) > MAX_VOLUME_SIDE or voxels > MAX_VOXELS:
        raise UnreadableImageError(
            f"the {what} is {named} voxels, at most {MAX_VOXELS} are read and {MAX_VOLUME_SIDE} a side; cut out the "
            "region of interest or resample it"
        )
    return sides[0], sides[1], sides[2]


def _voxel_type(header: Any, what: str) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        kind: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        kind = np.dtype("V1")
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise UnreadableImageError(
            f"the {what}'s voxels are of NIfTI data type {int(header['datatype'])}, one real number of 8 to 64 bits "
            "each is read; convert colour or complex values to one channel"
        )
    return kind


def _offset(header: Any, what: str) -> int:
    least = 4 + (540 if header["magic"].tobytes().startswith(b"n+2") else 348)
    stated = float(header["vox_offset"])
    # 0 is what some writers leave there; the header and the mark after it are always there.
    if stated == 0:
        return least
    if not (least <= stated <= MAX_HEADER_BYTES and stated.is_integer()):
        raise UnreadableImageError(
            f"the {what}'s voxels start at byte {stated:g}, must be {least} to {MAX_HEADER_BYTES}; export it again"
        )
    return int(stated)


def _scaling(header: Any, what: str) -> tuple[float, float]:
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise UnreadableImageError(
            f"the {what} is scaled by {slope:g} and an intercept that is no number; set scl_inter, 0 for none"
        )
    return slope, intercept


def _affine(header: Any, what: str) -> NDArray[np.float64]:
    found = _stated_affines(header)
    if not found:
        raise UnreadableImageError(
            f"the {what} does not say how it lies in the patient (qform and sform code are 0), so left and right "
            "cannot be told; set its orientation from the source images"
        )
    grids = [VoxelGrid((1, 1, 1), affine) for affine in found if _usable(affine)]
    if len(grids) < len(found):
        raise UnreadableImageError(
            f"the {what}'s orientation is no grid: spacing must be {SHORTEST_SPACING_MM} to {LONGEST_SPACING_MM} mm "
            "along three different directions; set its orientation from the source images"
        )
    if len({grid.axes for grid in grids}) > 1:
        raise UnreadableImageError(
            f"the {what}'s sform says {grids[0].axes} and its qform {grids[1].axes}; remove the wrong one"
        )
    return grids[0].affine


def _stated_affines(header: Any) -> list[NDArray[np.float64]]:
    """In millimetres, the sform before the qform; those whose code is 0 are left out."""
    unit = int(header["xyzt_units"]) & 7
    scale = np.diag([*3 * [_MILLIMETRES.get(unit, np.nan)], 1.0])
    sform, qform = (
        scale @ get() if int(header[code]) > 0 else None
        for get, code in ((header.get_sform, "sform_code"), (header.get_qform, "qform_code"))
    )
    return [affine for affine in (sform, qform) if affine is not None]


def _usable(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all():
        return False
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if sides.min() < SHORTEST_SPACING_MM or sides.max() > LONGEST_SPACING_MM:
        return False
    # The volume that unit directions span: 1 for a right-angled grid, 0 for one without depth.
    return abs(float(np.linalg.det(affine[:3, :3] / sides))) > 0.1
