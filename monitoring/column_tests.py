"""Evidently's door: p-values of columns and its HTML; knows nothing of windows or verdicts.

Numbers go through Evidently's Kolmogorov-Smirnov test. Its chi-square test takes the reference for the truth instead of
a sample, so it alarms too often, and gives p = 0 for a single subject of a new category. Categories therefore
go through a test of our own, registered with Evidently, so that its HTML shows the very p-values a look uses.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from monitoring.subject_tables import Column

if TYPE_CHECKING:
    import pandas as pd

NUMERIC_TEST = "ks"
CATEGORICAL_TEST = "homogeneity_exact"
TABLE_DRAWS = 19_999
"""Random tables per categorical column: the smallest p-value is 1/20,000, enough for Holm over a hundred columns."""
_SEED = 1900  # any constant serves: the draws only have to be independent of the data
_SMALLEST = 1e-300


def p_values(columns: Sequence[Column]) -> list[float]:
    """p-value in (0, 1] of each column, in the order given."""
    if not columns:
        return []
    results = _run(columns).dict()["metrics"]
    by_name = {result["config"]["column"]: float(result["value"]) for result in results}
    return [min(1.0, max(_SMALLEST, by_name[column.name])) for column in columns]


def html(columns: Sequence[Column]) -> str:
    """Evidently's page on the columns: one document with its scripts inside, about 4 MB, no request to anywhere."""
    return str(_run(columns).get_html_str(as_iframe=False))


def homogeneity_p_value(reference: "pd.Series[str]", current: "pd.Series[str]") -> float:
    """Monte-Carlo p-value of Pearson's homogeneity statistic with both margins fixed (Hope 1968); exact in level.

    With the margins fixed a random table is a draw from the multivariate hypergeometric distribution, which is what
    permuting subjects between the windows gives. Rare and new categories need no pooling.
    """
    pooled, codes = np.unique(np.concatenate([reference.astype(str), current.astype(str)]), return_inverse=True)
    total = np.bincount(codes, minlength=len(pooled))
    observed = np.bincount(codes[len(reference) :], minlength=len(pooled))
    expected = total * (len(current) / len(codes))
    drawn = np.random.default_rng(_SEED).multivariate_hypergeometric(
        total, len(current), size=TABLE_DRAWS, method="marginals"
    )
    statistic = ((observed - expected) ** 2 / expected).sum()
    random = ((drawn - expected) ** 2 / expected).sum(axis=1)
    return float((1 + np.count_nonzero(random >= statistic * (1 - 1e-9))) / (1 + TABLE_DRAWS))


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
