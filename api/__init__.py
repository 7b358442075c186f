"""The HTTP face: which adapter version is current, its files, predictions, drift, the ledger and the dashboard.

Knows routes, schemas, security, metrics and pages; knows nothing of flows, tables or how a model works inside.
"""

from api.application import create_app
from api.options import MaskAnswer, MaskPredictor, Predictor, ServiceOptions

__all__ = ["MaskAnswer", "MaskPredictor", "Predictor", "ServiceOptions", "create_app"]
