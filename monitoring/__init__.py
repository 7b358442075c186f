"""Drift: windows of arrays and tables in, one drift report out.

The one door of evidently, pandas and scipy. Knows nothing of torch, databases, files or schedules. Public names:
`Window`, `Intake` and `Past` are what a look needs, `look` takes it, `look_at_intake` needs no image, `is_faulty` is
asked of one batch. `DETECTORS` are a look's tests; `evidently_html` (in `monitoring.report_html`) draws two tables.
"""

from monitoring.detectors import DETECTORS
from monitoring.evidence import Past
from monitoring.looks import is_faulty, look, look_at_intake
from monitoring.windows import UNLABELLED, Intake, Window

__all__ = ["DETECTORS", "UNLABELLED", "Intake", "Past", "Window", "is_faulty", "look", "look_at_intake"]
