"""Drift: windows of arrays and tables in, one drift report out.

The one door of evidently, pandas and scipy. Knows nothing of torch, databases, files or schedules. Public names:
`Window`, `Intake` and `Past` are what a look needs, `look` takes it, `DETECTORS` are the tests it runs, and
`evidently_html` (in `monitoring.report_html`) draws the two tables for a reader.
"""

from monitoring.detectors import DETECTORS
from monitoring.evidence import Past
from monitoring.looks import look
from monitoring.windows import UNLABELLED, Intake, Window

__all__ = ["DETECTORS", "UNLABELLED", "Intake", "Past", "Window", "look"]
