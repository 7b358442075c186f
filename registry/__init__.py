"""What is stored, and who may replace what: samples, adapter versions, aliases, drift reports, updates, the ledger.

The one door of SQLAlchemy, alembic and fsspec. Knows nothing of how an adapter is trained, how an image is read, of
HTTP or of schedules. The public names, in `__all__`, load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.deliveries import Delivery, DeliveryState
    from registry.erasures import Erasure, ErasureOrder
    from registry.holds import Hold
    from registry.images import LetGo
    from registry.late_labels import LabelFate, LabelOutcome, OfferedLabel
    from registry.promotion import run_gate
    from registry.quarantine import Refusal
    from registry.registry import Registry, open_registry
    from registry.report_views import report_view, store_projection
    from registry.samples import Batch, SampleCounts
    from registry.updates import JUDGED, Update

__all__ = [
    "JUDGED",
    "Batch",
    "Delivery",
    "DeliveryState",
    "Erasure",
    "ErasureOrder",
    "Hold",
    "LabelFate",
    "LabelOutcome",
    "LetGo",
    "OfferedLabel",
    "Refusal",
    "Registry",
    "SampleCounts",
    "Update",
    "open_registry",
    "report_view",
    "run_gate",
    "store_projection",
]

_HOMES = {
    "Batch": "registry.samples",
    "Delivery": "registry.deliveries",
    "DeliveryState": "registry.deliveries",
    "Erasure": "registry.erasures",
    "ErasureOrder": "registry.erasures",
    "Hold": "registry.holds",
    "JUDGED": "registry.updates",
    "LabelFate": "registry.late_labels",
    "LabelOutcome": "registry.late_labels",
    "LetGo": "registry.images",
    "OfferedLabel": "registry.late_labels",
    "Refusal": "registry.quarantine",
    "Registry": "registry.registry",
    "SampleCounts": "registry.samples",
    "Update": "registry.updates",
    "open_registry": "registry.registry",
    "report_view": "registry.report_views",
    "run_gate": "registry.promotion",
    "store_projection": "registry.report_views",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
