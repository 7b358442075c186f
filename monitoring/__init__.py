"""Drift: windows of arrays and tables in, one drift report out.

The one door of evidently, pandas and scipy. Knows nothing of torch, databases, files or schedules. Public names:
`Window`, `Intake` and `Past` are what a look needs, `look` takes it, `DETECTORS` are the tests it runs; `Outcomes` are
what labels say of predictions, `risk_evidence` reads them over time; `evidently_html` (in `monitoring.report_html`)
draws the two tables for a reader.
"""

from monitoring.detectors import DETECTORS
from monitoring.evidence import Past
from monitoring.looks import look
from monitoring.risk import Outcomes, risk_evidence
from monitoring.windows import UNLABELLED, Intake, Window

__all__ = ["DETECTORS", "UNLABELLED", "Intake", "Outcomes", "Past", "Window", "look", "risk_evidence"]
