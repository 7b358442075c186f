"""A page on the two tables for a reader who wants to see distributions; knows nothing of verdicts."""

from dataclasses import replace

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring import column_tests
from monitoring.subject_tables import paired_columns
from monitoring.windows import Window

_PREFIXES = {SignalFamily.ACQUISITION_TAGS: "tag", SignalFamily.PIXEL_STATISTICS: "pixel"}


def evidently_html(reference: Window, current: Window) -> str:
    """Evidently's HTML on tags and pixel statistics, one row per subject: self-contained, about 4 MB.

    Its p-values are those of a look before Holm. Raises WindowError when every column is constant.
    """
    columns = [
        replace(column, name=f"{prefix} {column.name}")
        for family, prefix in _PREFIXES.items()
        for column in paired_columns(reference, current, family)
    ]
    if not columns:
        raise WindowError(
            f"0 columns of sites {reference.site} and {current.site} vary, at least 1 is needed; send other windows"
        )
    return column_tests.html(columns)
