"""A predicted mask as an answer: class numbers, their shares, a PNG; knows nothing of how it was predicted."""

import base64
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, Field

from api.boxes import origins
from api.schemas import DriftState
from api.serving import Prediction
from continual.domain.adapters import asked_with_boxes

BACKGROUND = "background"
PNG = "image/png"
JSON = "application/json"

Mask = UInt8[np.ndarray, "height width"]
AnyMask = UInt8[np.ndarray, "*place"]


class MaskClass(BaseModel):
    """One class of a mask: its number in the pixels, its name, and the share of pixels that it covers."""

    number: int = Field(description="0 is the background; the version's classes follow from 1")
    name: str
    share: float = Field(description="In [0, 1]; the shares of all classes sum to 1")


class MaskPrediction(BaseModel):
    """A class for every pixel of one image, and which version on which backbone said so."""

    adapter: str
    version: int
    backbone_digest: str
    height: int
    width: int
    classes: list[MaskClass]
    confidence: float = Field(description="Mean over the pixels of the chosen class's probability, in [0, 1]")
    mask: str = Field(description="8-bit single-channel PNG of class numbers, the image's height and width, in base64")
    drift: DriftState | None = Field(description="Latest drift verdict of the site named in ?site=")
    boxes: dict[str, str] | None = Field(
        description=(
            'Of a version that takes boxes, where each class\'s came from: "request" or "whole image"; a class that '
            "was not looked for is left out"
        )
    )


def class_shares(mask: AnyMask, classes: Sequence[str]) -> list[float]:
    """Share of the pixels or voxels that the background and each class cover, in order of their numbers."""
    counts = np.bincount(mask.ravel(), minlength=len(classes) + 1)[: len(classes) + 1]
    return [float(count) / mask.size for count in counts]


def mask_png(mask: Mask) -> bytes:
    """The mask as a PNG without metadata."""
    from continual.imaging import encode_mask

    return encode_mask(mask)


def mask_prediction(answer: Prediction, drift: DriftState | None) -> MaskPrediction:
    """The first image's answer as JSON."""
    said, version = answer.masks[0], answer.version
    shares = class_shares(said.mask, version.classes)
    named = zip((BACKGROUND, *version.classes), shares, strict=True)
    return MaskPrediction(
        adapter=version.adapter,
        version=version.number,
        backbone_digest=answer.backbone_digest,
        height=said.mask.shape[0],
        width=said.mask.shape[1],
        classes=[MaskClass(number=number, name=name, share=share) for number, (name, share) in enumerate(named)],
        confidence=said.confidence,
        mask=base64.b64encode(mask_png(said.mask)).decode(),
        drift=drift,
        boxes=origins(version, answer.boxes[0]) if asked_with_boxes(version.record) else None,
    )


def prefers(accept: str, media_type: str) -> bool:
    """Whether an Accept header asks for this type rather than JSON (RFC 9110, 12.5.1); what it leaves open is JSON."""
    return _quality(accept, media_type) > _quality(accept, JSON)


def _quality(accept: str, media_type: str) -> float:
    """The weight of the most specific range that the type falls under; 0 when none does."""
    ranges = dict(_ranges(accept or "*/*"))
    for wanted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if wanted in ranges:
            return ranges[wanted]
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weights = [word[2:] for word in parameters if word.startswith("q=")]
        try:
            yield name, float(weights[0]) if weights else 1.0
        except ValueError:
            yield name, 0.0
