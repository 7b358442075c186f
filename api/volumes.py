"""A volume's mask as an answer: class numbers in the upload's own grid, and how many ml each class fills.

Knows nothing of how it was predicted or of the file that came.
"""

import base64

import numpy as np
from pydantic import BaseModel, Field

from api.masks import BACKGROUND, MaskClass, class_shares
from api.options import VolumeMask
from api.schemas import DriftState
from api.serving import Prediction

GZIP = "application/gzip"
"""NIfTI has no registered type; the mask is sent as .nii.gz (RFC 6713)."""
_MM3_PER_ML = 1000.0


class VolumeClass(MaskClass):
    """One class of a volume's mask, and how much of the patient it fills."""

    volume_ml: float = Field(description="Voxels of this class times the volume of one voxel, in millilitres")


class VolumeMaskPrediction(BaseModel):
    """A class for every voxel of one volume, and which version on which backbone said so."""

    adapter: str
    version: int
    backbone_digest: str
    shape: list[int] = Field(description="Voxels along the axes of the uploaded file, in its order")
    spacing_mm: list[float] = Field(description="Along right, front and head, whatever order the file has")
    classes: list[VolumeClass]
    confidence: float = Field(description="Mean over the voxels of the chosen class's probability, in [0, 1]")
    mask: str = Field(description="8-bit .nii.gz of class numbers on the uploaded file's grid, in base64")
    drift: DriftState | None = Field(description="Latest drift verdict of the site named in ?site=")


def mask_nifti(answer: Prediction) -> bytes:
    """The first volume's mask as .nii.gz, in the order, orientation and place of the file that came."""
    from continual.imaging import mask_on_grid

    return mask_on_grid(answer.masks[0].mask, answer.grids[0])


def masks_as_uploaded(answer: Prediction) -> list[VolumeMask]:
    """Every volume's mask with its voxels in the order of the file that came."""
    return [grid.from_canonical(said.mask) for said, grid in zip(answer.masks, answer.grids, strict=True)]


def volume_prediction(answer: Prediction, drift: DriftState | None) -> VolumeMaskPrediction:
    """The first volume's answer as JSON."""
    said, grid, version = answer.masks[0], answer.grids[0], answer.version
    counts = np.bincount(said.mask.ravel(), minlength=len(version.classes) + 1)
    named = zip((BACKGROUND, *version.classes), class_shares(said.mask, version.classes), strict=True)
    classes = [
        VolumeClass(
            number=number, name=name, share=share, volume_ml=float(counts[number]) * grid.voxel_mm3 / _MM3_PER_ML
        )
        for number, (name, share) in enumerate(named)
    ]
    return VolumeMaskPrediction(
        adapter=version.adapter,
        version=version.number,
        backbone_digest=answer.backbone_digest,
        shape=list(grid.shape),
        spacing_mm=list(grid.spacing_mm),
        classes=classes,
        confidence=said.confidence,
        mask=base64.b64encode(mask_nifti(answer)).decode(),
        drift=drift,
    )
