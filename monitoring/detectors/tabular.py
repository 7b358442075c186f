"""Column by column test of acquisition tags and pixel statistics; knows nothing of embeddings or verdicts."""

import math
from collections import Counter

import numpy as np
from jaxtyping import Float

from continual.domain.drift import SignalFamily
from monitoring import column_tests
from monitoring.detectors.detector import Detector, Effort, Finding
from monitoring.subject_tables import Column, Value, paired_columns
from monitoring.windows import Window


def measure(reference: Window, current: Window, family: SignalFamily, _effort: Effort) -> tuple[Finding, ...]:
    """One finding per column that is not constant; p-values of `monitoring.column_tests`.

    The score lies in [0, 1] and reads as a share of subjects that moved: the Kolmogorov-Smirnov distance of a number,
    the total variation distance of a category. The smallest alarming score is Smirnov's (1948) large-sample critical
    distance; above 1 means that nothing could have alarmed.
    """
    columns = paired_columns(reference, current, family)
    return tuple(
        _finding(column, p_value) for column, p_value in zip(columns, column_tests.p_values(columns), strict=True)
    )


def moved_share(column: Column) -> float:
    """Share of subjects that moved, in [0, 1]: the distance that `measure` has as its score."""
    known, new = _recorded(column)
    if column.numeric:
        return _largest_gap(np.asarray(known, dtype=float), np.asarray(new, dtype=float))
    there, here = Counter(known), Counter(new)
    return 0.5 * sum(abs(here[key] / len(new) - there[key] / len(known)) for key in {*there, *here})


def _finding(column: Column, p_value: float) -> Finding:
    known, new = _recorded(column)
    spread = math.sqrt((len(known) + len(new)) / (len(known) * len(new)))
    detail: dict[str, float | int | str] = {
        "test": "kolmogorov_smirnov" if column.numeric else "homogeneity",
        "reference_subjects": len(known),
        "current_subjects": len(new),
    }
    return Finding(
        column.name,
        moved_share(column),
        p_value,
        lambda level: math.sqrt(-math.log(level / 2) / 2) * spread,
        detail,
    )


def _recorded(column: Column) -> tuple[list[Value], list[Value]]:
    known = [value for value in column.reference if value is not None]
    return known, [value for value in column.current if value is not None]


def _largest_gap(known: Float[np.ndarray, "subject"], new: Float[np.ndarray, "subject"]) -> float:
    """Largest distance between the two empirical distribution functions, in [0, 1]."""
    at = np.concatenate([known, new])
    below = [np.searchsorted(np.sort(side), at, side="right") / len(side) for side in (known, new)]
    return float(np.abs(below[0] - below[1]).max())


DETECTOR = Detector("tabular", (SignalFamily.ACQUISITION_TAGS, SignalFamily.PIXEL_STATISTICS), measure)
