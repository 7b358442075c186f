"""What every detector takes and gives; knows nothing of how one works."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from continual.domain.drift import SignalFamily
from monitoring.windows import Window


@dataclass(frozen=True, slots=True)
class Effort:
    """How many permutations a detector draws, and from which seed; the same effort gives the same findings.

    `level`, in (0, 1), is the smallest at which a family may have to reject after Holm over all families; a detector
    whose findings share a family with many others draws as many permutations as its own share of it takes.
    """

    permutations: int
    seed: int
    level: float = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of one thing. A higher score means more drift; `p_value` in (0, 1] holds at the level of subjects.

    `smallest_alarming` maps a level to the smallest score whose p-value would not have exceeded it. `detail` is plain
    JSON.
    """

    name: str
    score: float
    p_value: float
    smallest_alarming: Callable[[float], float]
    detail: Mapping[str, float | int | str] = field(default_factory=dict)


Measure = Callable[[Window, Window, SignalFamily, Effort], tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class Detector:
    """A named test for some signal families.

    `measure(reference, current, family, effort)` returns one finding per thing tested, none where the family has
    nothing to compare (no outputs, only constant columns). It raises WindowError when the windows cannot be compared.
    """

    name: str
    families: tuple[SignalFamily, ...]
    measure: Measure
