"""What a person sees of a drift report besides its own figures: looks before it, a map, example images."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from continual.domain.adapters import AliasMove
from continual.domain.drift import DriftReport


class Side(StrEnum):
    """What a group of points on the map is."""

    REFERENCE = "reference"
    KNOWN_SITE = "known site"
    EARLIER = "earlier windows"
    CURRENT = "current window"


@dataclass(frozen=True, slots=True)
class ProjectedGroup:
    """Some images of one site on the map, without their names, and the mean of all of them."""

    site: str
    side: Side
    images: int
    """How many the mean is of; fewer may be drawn."""
    centre: tuple[float, float]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """Embeddings on the two directions in which they vary most (principal components), in the embedding's own unit."""

    groups: tuple[ProjectedGroup, ...]
    explained: tuple[float, float]
    """Share of all variance along each direction, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ExampleImage:
    """A stored image, or why there is none: it was erased, or let go under a plan that keeps no images."""

    data: bytes | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class ReportView:
    """All that a page on one report is drawn from, as it was when the report was filed; images as they are now.

    `looks` are the site's, oldest first, the report's own last; `moves` those of the champion until then. `images` are
    by digest.
    """

    report: DriftReport
    looks: tuple[DriftReport, ...]
    moves: tuple[AliasMove, ...]
    projection: Projection | None
    images: Mapping[str, ExampleImage]
