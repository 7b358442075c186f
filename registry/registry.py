"""The registry as one value: its stores over one database and one artifact store; knows no settings or environment."""

from types import TracebackType
from typing import Self, final

from registry.adapters import AdapterStore
from registry.artifacts import ArtifactStore
from registry.database import Database, make_engine
from registry.deliveries import DeliveryStore
from registry.drift_reports import DriftReportStore
from registry.erasures import ErasureStore
from registry.holds import HoldStore
from registry.images import ImageStore
from registry.late_labels import LateLabelStore
from registry.ledger import Ledger
from registry.predictions import PredictionStore
from registry.samples import SampleStore
from registry.schema import bring_to_head
from registry.updates import UpdateStore


@final
class Registry:
    """All stores of one registry; a context manager that closes its connections. Safe to use from many threads."""

    samples: SampleStore
    adapters: AdapterStore
    drift: DriftReportStore
    deliveries: DeliveryStore
    updates: UpdateStore
    erasures: ErasureStore
    images: ImageStore
    holds: HoldStore
    predictions: PredictionStore
    late_labels: LateLabelStore
    ledger: Ledger
    artifacts: ArtifactStore

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self.artifacts = artifacts
        self.samples = SampleStore(database, artifacts)
        self.adapters = AdapterStore(database, artifacts)
        self.drift = DriftReportStore(database)
        self.deliveries = DeliveryStore(database)
        self.updates = UpdateStore(database)
        self.erasures = ErasureStore(database, artifacts)
        self.images = ImageStore(database, artifacts)
        self.holds = HoldStore(database)
        self.predictions = PredictionStore(database)
        self.late_labels = LateLabelStore(database)
        self.ledger = Ledger(database)

    def close(self) -> None:
        """Give all connections back."""
        self.adapters.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_registry(database_url: str, artifacts_url: str) -> Registry:
    """Open a registry, its database brought to this release's schema (created when missing or empty).

    `database_url` is `sqlite:///path` or `postgresql+psycopg://...`; `artifacts_url` a folder or any fsspec URL. Raises
    SettingsError on a URL that cannot be used, SchemaError on a database of a newer release or of another program.
    """
    engine = make_engine(database_url)
    try:
        bring_to_head(engine)
        artifacts = ArtifactStore(artifacts_url)
    except BaseException:
        engine.dispose()
        raise
    return Registry(Database(engine), artifacts)
