"""Drift: windows of arrays and tables in, one drift report out.

The one door of evidently, pandas and scipy. Knows nothing of torch, databases, files or schedules. Public names:
`Window`, `Intake` and `Past` are what a look needs, `look` takes it, `look_at_intake` needs no image, `is_faulty` is
asked of one batch. `DETECTORS` are a look's tests; `Outcomes` are what labels say of predictions, `risk_evidence` reads
them over time; `project` maps embeddings. `drift_page` (in `monitoring.drift_page`) draws a report for a reader,
`evidently_html` (in `monitoring.report_html`) its two tables.
"""

from monitoring.detectors import DETECTORS
from monitoring.evidence import Past
from monitoring.looks import is_faulty, look, look_at_intake
from monitoring.projection import project
from monitoring.risk import Outcomes, risk_evidence
from monitoring.windows import UNLABELLED, Intake, Window

__all__ = [
    "DETECTORS",
    "UNLABELLED",
    "Intake",
    "Outcomes",
    "Past",
    "Window",
    "is_faulty",
    "look",
    "look_at_intake",
    "project",
    "risk_evidence",
]
