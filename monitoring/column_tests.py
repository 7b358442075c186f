"""p-values of columns of subjects; knows nothing of windows or verdicts.

Numbers go through Kolmogorov-Smirnov's test. Pearson's chi-square with its large-sample p-value alarms too often on
rare categories, and gives p = 0 for a single subject of a new one; categories therefore have a Monte-Carlo test of
homogeneity. `monitoring.report_html` shows the very same p-values through Evidently.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import ks_2samp

from monitoring.subject_tables import Column, Value

if TYPE_CHECKING:
    import pandas as pd

TABLE_DRAWS = 19_999
"""Random tables per categorical column: the smallest p-value is 1/20,000, enough for Holm over a hundred columns."""
_SEED = 1900  # any constant serves: the draws only have to be independent of the data
_SMALLEST = 1e-300


def p_values(columns: Sequence[Column]) -> list[float]:
    """p-value in (0, 1] of each column, in the order given."""
    return [min(1.0, max(_SMALLEST, _p_value(column))) for column in columns]


def _p_value(column: Column) -> float:
    known, new = ([value for value in side if value is not None] for side in (column.reference, column.current))
    if column.numeric:
        with warnings.catch_warnings():
            # Where its exact sum overflows, scipy falls back to the large-sample p-value and says so.
            warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
            return float(ks_2samp(known, new).pvalue)
    return homogeneity_p_value(known, new)


def homogeneity_p_value(
    reference: "Sequence[Value] | pd.Series[str]", current: "Sequence[Value] | pd.Series[str]"
) -> float:
    """Monte-Carlo p-value of Pearson's homogeneity statistic with both margins fixed (Hope 1968); exact in level.

    With the margins fixed a random table is a draw from the multivariate hypergeometric distribution, which is what
    permuting subjects between the windows gives. Rare and new categories need no pooling.
    """
    pooled, codes = np.unique([*map(str, reference), *map(str, current)], return_inverse=True)
    total = np.bincount(codes, minlength=len(pooled))
    observed = np.bincount(codes[len(reference) :], minlength=len(pooled))
    expected = total * (len(current) / len(codes))
    drawn = np.random.default_rng(_SEED).multivariate_hypergeometric(
        total, len(current), size=TABLE_DRAWS, method="marginals"
    )
    statistic = ((observed - expected) ** 2 / expected).sum()
    random = ((drawn - expected) ** 2 / expected).sum(axis=1)
    return float((1 + np.count_nonzero(random >= statistic * (1 - 1e-9))) / (1 + TABLE_DRAWS))
