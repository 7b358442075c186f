"""Evidently's door: a page on the two tables for a reader who wants to see distributions; knows nothing of verdicts.

Its chi-square test takes the reference for the truth instead of a sample. The test of `monitoring.column_tests` is
registered with it, so that the page shows the very p-values a look uses.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from continual.domain.drift import SignalFamily
from continual.domain.errors import WindowError
from monitoring.column_tests import homogeneity_p_value
from monitoring.subject_tables import Column, paired_columns
from monitoring.windows import Window

if TYPE_CHECKING:
    import pandas as pd

NUMERIC_TEST = "ks"
CATEGORICAL_TEST = "homogeneity_exact"
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
    return str(_run(columns).get_html_str(as_iframe=False))


@dataclass(frozen=True, slots=True)
class _Evidently:
    """The few names of the library used here."""

    report: Any
    value_drift: Any
    dataset: Any
    definition: Any


@cache
def _evidently() -> _Evidently:
    # A hospital's server sends usage reports to nobody.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # It imports its web server, whose deprecations nobody here can act on.
        warnings.simplefilter("ignore", DeprecationWarning)
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.metrics import ValueDrift
    test = StatTest(
        name=CATEGORICAL_TEST,
        display_name="exact homogeneity p_value",
        allowed_feature_types=[ColumnType.Categorical],
    )
    register_stattest(test, _registered)
    return _Evidently(Report, ValueDrift, Dataset, DataDefinition)


def _registered(
    reference: "pd.Series[str]", current: "pd.Series[str]", _feature_type: object, threshold: float
) -> tuple[float, bool]:
    p_value = homogeneity_p_value(reference, current)
    return p_value, p_value <= threshold


def _run(columns: Sequence[Column]) -> Any:
    """Evidently's snapshot of one value-drift metric per column."""
    evidently = _evidently()
    definition = evidently.definition(
        numerical_columns=[column.name for column in columns if column.numeric],
        categorical_columns=[column.name for column in columns if not column.numeric],
    )
    metrics = [
        evidently.value_drift(column=column.name, method=NUMERIC_TEST if column.numeric else CATEGORICAL_TEST)
        for column in columns
    ]
    reference, current = (
        evidently.dataset.from_pandas(_frame(columns, current=side), definition) for side in (False, True)
    )
    return evidently.report(metrics, include_tests=False).run(current, reference)


def _frame(columns: Sequence[Column], *, current: bool) -> "pd.DataFrame":
    import pandas as pd

    values = {column.name: (column.current if current else column.reference) for column in columns}
    return pd.DataFrame(
        {column.name: pd.Series(values[column.name], dtype=float if column.numeric else object) for column in columns}
    )
