"""A real registry on SQLite, a deterministic predictor, and a real server on a loopback port."""

import io
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from api import ServiceOptions, create_app
from continual.domain.adapters import AdapterVersion, GateDecision, GateFinding, Task, VersionDraft
from continual.domain.drift import Action, DriftReport, EvidenceOverTime, Verdict
from registry import Registry, open_registry

BACKBONE = "b" * 64
CLASSES = ("dark", "bright")
TOKEN = "letmein-1234"


class BrightnessPredictor:
    """Says "bright" with the mean grey level as probability: real pixels in, checkable scores out."""

    task = Task.CLASSIFICATION
    classes = CLASSES
    backbone_digest = BACKBONE

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def predict(self, pixels: NDArray[np.uint8]) -> Mapping[str, float]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("two threads used one predictor at once")
        try:
            bright = float(pixels.mean()) / 255
            return {"dark": 1 - bright, "bright": bright}
        finally:
            self._busy.release()


@dataclass(frozen=True, slots=True)
class ThresholdMask:
    """One answer of `ThresholdPredictor`."""

    mask: NDArray[np.uint8]
    confidence: float


class ThresholdPredictor:
    """Marks pixels brighter than 85 as class 1 and brighter than 170 as class 2: a mask that can be checked by eye."""

    task = Task.SEGMENTATION
    classes = CLASSES
    backbone_digest = BACKBONE

    def predict(self, pixels: NDArray[np.uint8]) -> Mapping[str, float]:
        mask = self.predict_mask(pixels).mask
        return {name: float(np.mean(mask == number)) for number, name in enumerate(self.classes, start=1)}

    def predict_mask(self, pixels: NDArray[np.uint8]) -> ThresholdMask:
        return ThresholdMask((pixels[..., 0] > 85).astype(np.uint8) + (pixels[..., 0] > 170), 0.75)


@dataclass(frozen=True, slots=True)
class Bench:
    """Makes what the tests need, in one registry; versions made from now on are judged on the splits in `tested`."""

    registry: Registry
    tested: dict[str, str] = field(default_factory=dict)

    def png(self, grey_level: int = 200, side: int = 64) -> bytes:
        """A square whose left half is `grey_level` and whose right half is a little darker: not blank."""
        pixels = np.full((side, side, 3), grey_level, np.uint8)
        pixels[:, side // 2 :] -= 20
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def gate(self, accepted: bool) -> GateDecision:
        finding = GateFinding(
            site="north",
            role="past",
            champion=0.9,
            candidate=0.9 if accepted else 0.6,
            difference=0.0 if accepted else -0.3,
            lower_bound=-0.01 if accepted else -0.36,
            limit=-0.05,
            passed=accepted,
            subjects=24,
            reason="holds" if accepted else "falls by 0.30, more than 0.05 is not allowed",
        )
        return GateDecision(accepted=accepted, findings=(finding,), margin=-0.05, confidence=0.9)

    def candidate(
        self,
        adapter: str,
        parent: int | None = None,
        trained_on: tuple[str, ...] = ("north",),
        metric: str = "balanced_accuracy",
        network: Mapping[str, object] | None = None,
    ) -> AdapterVersion:
        draft = VersionDraft(
            adapter=adapter,
            parent=parent,
            strategy="replay_ewc",
            backbone_digest=BACKBONE,
            trained_on=trained_on,
            classes=CLASSES,
            metric=metric,
            metrics={"north": 0.91, "south": 0.69 + 0.05 * len(trained_on)},
            record={"seed": 7, "network": dict(network or {}), "tested": dict(self.tested)},
        )
        weights = bytes(range(256)) * 40 + repr((adapter, parent, trained_on)).encode()
        files = {
            "adapter_model.safetensors": weights,
            "adapter_config.json": b'{"r": 8}',
            "README.md": b"# Model card\n",
            "record.json": b'{"seed": 7}',
        }
        return self.registry.adapters.register(draft, files, "test")

    def champion(
        self,
        adapter: str,
        parent: int | None = None,
        trained_on: tuple[str, ...] = ("north",),
        metric: str = "balanced_accuracy",
        network: Mapping[str, object] | None = None,
    ) -> AdapterVersion:
        """A version that passed the gate and took the champion alias."""
        version = self.candidate(adapter, parent, trained_on, metric, network)
        self.registry.adapters.promote(adapter, version.number, self.gate(True), "champion", "test", "the gate passed")
        return self.registry.adapters.get(adapter, version.number)

    def rejected(self, adapter: str, parent: int | None = None) -> AdapterVersion:
        version = self.candidate(adapter, parent, ("north", "east"))
        self.registry.adapters.decide(adapter, version.number, self.gate(False), "test")
        return self.registry.adapters.get(adapter, version.number)

    def look(
        self,
        site: str,
        verdict: Verdict,
        action: Action,
        reason: str = "12 of 40 images are broken",
        adapter: str | None = None,
    ) -> int:
        """Store a drift report of an adapter, unless named of the first by name; its number."""
        report = DriftReport(
            site=site,
            reference_site=site,
            verdict=verdict,
            action=action,
            reason=reason,
            alpha=0.05,
            reference_subjects=40,
            current_subjects=20,
            reference_samples=40,
            current_samples=40,
            quarantined=12,
            signals=(),
            over_time=EvidenceOverTime(2.5, 40.0, {"embeddings": 2.5}, {"embeddings": 5.0}, windows=1, since=1),
            adapter=next(iter(self.registry.adapters.names()), "") if adapter is None else adapter,
            created_at=datetime.now(UTC),
        )
        return self.registry.drift.add(report, "test").id or 0


@dataclass(frozen=True, slots=True)
class Door:
    """A running service: its client, its registry and its address."""

    http: httpx.Client
    registry: Registry
    url: str


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrations run once; every test gets a copy of their outcome."""
    folder = tmp_path_factory.mktemp("empty")
    open_registry(f"sqlite:///{folder / 'registry.db'}", str(folder / "artifacts")).close()
    return folder / "registry.db"


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Iterator[Registry]:
    shutil.copy(empty_database, tmp_path / "registry.db")
    with open_registry(f"sqlite:///{tmp_path / 'registry.db'}", str(tmp_path / "artifacts")) as opened_one:
        yield opened_one


@pytest.fixture
def bench(registry: Registry) -> Bench:
    return Bench(registry)


class Switch:
    """One server for all tests, whose application each test puts in: starting a server costs more than most tests."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is None:
            raise RuntimeError("no test is running")
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def switch() -> Iterator[Switch]:
    """A real uvicorn server on a free loopback port."""
    held = Switch()
    listening = socket.create_server(("127.0.0.1", 0))
    held.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(held, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield held
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def client(switch: Switch) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=switch.url, timeout=20, trust_env=False) as made:
        yield made


@pytest.fixture
def opened(switch: Switch, client: httpx.Client, registry: Registry) -> Iterator[Callable[..., Door]]:
    """Serve this test's registry with the options given."""

    def serve(options: ServiceOptions | None = None) -> Door:
        chosen = options or ServiceOptions(predictor_loader=lambda _: BrightnessPredictor(), api_token=TOKEN)
        app = create_app(registry, chosen)
        switch.app = app
        return Door(client, registry, switch.url)

    yield serve
    if isinstance(switch.app, FastAPI):
        switch.app.state.service.desk.close()
        switch.app.state.service.predictions.close()
        switch.app.state.service.current.close()
    switch.app = None


@pytest.fixture
def door(opened: Callable[..., Door]) -> Door:
    return opened()


@pytest.fixture
def masks_door(opened: Callable[..., Door], bench: Bench) -> Door:
    """A service whose one champion, of the adapter "vessels", segments."""
    bench.champion("vessels", metric="dice")
    return opened(ServiceOptions(predictor_loader=lambda _: ThresholdPredictor()))


@pytest.fixture
def authorised() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", "x-actor": "dr-grid"}
