"""A drift report's page as a file: what stands beside the report, small images, and Evidently's tables."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from continual.domain.drift import DriftReport
from continual.domain.errors import WindowError
from continual.domain.samples import Sample
from continual.imaging import thumbnails
from flows.drift.looks import window_samples
from flows.updates.adapter_context import context_of
from flows.updates.experiences import held_out
from flows.whole_files import write_whole
from flows.workplace import Workplace
from monitoring import Window
from monitoring.drift_page import Surroundings, drift_page
from monitoring.report_html import evidently_html
from registry import report_view


def write_drift_page(workplace: Workplace, report: DriftReport, path: Path) -> None:
    """Write the page whole or not at all; about 4 MB, nearly all of it Evidently's."""
    view = report_view(workplace.registry, report)
    page = drift_page(replace(view, images=thumbnails(view.images)), _tables(workplace, report))
    write_whole(path, page.encode())


def _tables(workplace: Workplace, report: DriftReport) -> Surroundings:
    """Drawn anew from the stored tags and statistics, so what was erased since is not in them."""
    if report.version is None or not report.reference_site:
        return Surroundings(tables_note="There was no reference to draw distributions of.")
    context = context_of(workplace, report.adapter)
    version = workplace.registry.adapters.get(report.adapter, report.version)
    reference = held_out(context, version, report.reference_site)
    current = window_samples(context, version, report)
    if not reference or not current:
        return Surroundings(tables_note="The images of this look, or of its reference, are not stored any more.")
    try:
        both = (_table(report.reference_site, reference), _table(report.site, current))
        return Surroundings(tables=evidently_html(*both))
    except WindowError:
        return Surroundings(tables_note="No tag and no pixel statistic varies.")


def _table(site: str, samples: Sequence[Sample]) -> Window:
    return Window(
        site=site,
        subjects=tuple(sample.subject for sample in samples),
        embeddings=np.zeros((len(samples), 1)),  # the tables do not look at them
        outputs=None,
        tags=tuple(sample.tags for sample in samples),
        pixel_statistics=tuple(sample.pixel_statistics for sample in samples),
    )
