"""What stands beside a drift report: looks before it, the champion's moves, its map, its images if they still exist.

Knows nothing of pages. Pixels are read from the sample store each time: what was erased or let go cannot be shown.
"""

from functools import cache

from pydantic import TypeAdapter

from continual.domain.adapters import CHAMPION
from continual.domain.drift import DriftReport
from continual.domain.drift_views import ExampleImage, Projection, ReportView
from continual.domain.errors import ArtifactError, NotFoundError
from continual.domain.samples import Sample
from registry.registry import Registry

MOST_LOOKS = 120
"""Looks of the adapter at the site, the newest up to the report, that stand beside it."""
ERASED, NOT_KEPT, DAMAGED = "erased", "not kept", "damaged in the store"


def store_projection(registry: Registry, projection: Projection) -> str:
    """Keep a map of embeddings as JSON; its address."""
    return registry.artifacts.put(_projections().dump_json(projection))


def report_view(registry: Registry, report: DriftReport) -> ReportView:
    """All that a page on the report is drawn from."""
    looks = registry.drift.until(report, MOST_LOOKS)
    at = report.created_at
    moves = registry.adapters.history(report.adapter, CHAMPION) if report.adapter else []
    return ReportView(
        report=report,
        looks=tuple(looks),
        moves=tuple(move for move in moves if at is None or move.moved_at <= at),
        projection=_projection(registry, report),
        images=_images(registry, report),
    )


def _projection(registry: Registry, report: DriftReport) -> Projection | None:
    if report.projection is None:
        return None
    try:
        return _projections().validate_json(registry.artifacts.get(report.projection))
    except ArtifactError:
        return None  # a page with a gap is better than none


def _images(registry: Registry, report: DriftReport) -> dict[str, ExampleImage]:
    cause = report.root_cause
    if cause is None:
        return {}
    current = {digest: _image(registry, digest, report.site) for digest in (*cause.nearest, *cause.farthest)}
    return {digest: _image(registry, digest, report.reference_site) for digest in cause.usual} | current


def _image(registry: Registry, digest: str, site: str) -> ExampleImage:
    try:
        sample: Sample = registry.samples.get([digest], site)[0]
    except NotFoundError:
        return ExampleImage(None, ERASED)
    try:
        return ExampleImage(registry.samples.read(sample))
    except ArtifactError:
        return ExampleImage(None, DAMAGED if registry.artifacts.has(sample.artifact) else NOT_KEPT)


@cache
def _projections() -> TypeAdapter[Projection]:
    return TypeAdapter(Projection)
