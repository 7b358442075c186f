"""A released workspace of one small site, and makers of more; plain functions of the flows, no Prefect server."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from continual.domain.samples import IntakeSummary
from registry import Registry, open_registry

if TYPE_CHECKING:
    from flows.adapter_context import AdapterOptions

ADAPTER = "cells"
SUBJECTS = tuple(f"s{number}" for number in range(40))


def _load_stream() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_stream", Path(__file__).with_name("small_stream.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def stream() -> ModuleType:
    """Makers of pictures, manifests and the tiny backbone: `tests/flows/small_stream.py`."""
    return _load_stream()


@pytest.fixture(scope="session", autouse=True)
def quiet_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One torch thread, no telemetry, and Prefect's files out of the home folder, before anything imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTINUAL_THREADS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield


@dataclass(frozen=True, slots=True)
class Desk:
    """A workspace with a folder of files beside it, worked on as the flows do."""

    folder: Path
    stream: ModuleType

    @property
    def workspace(self) -> str:
        return str(self.folder / "workspace")

    def take_in(self, rows: list[Any], site: str, adapter: str | None = None) -> IntakeSummary:
        from flows.ingest import take_in
        from flows.requests import Incoming

        manifest = self.stream.write_manifest(self.folder / "manifest.csv", rows)
        return take_in(self.workspace, Incoming(str(manifest)), site, adapter)

    def cells(self, site: str, subjects: tuple[str, ...] = SUBJECTS, seed: int = 1) -> list[Any]:
        """Pictures of the subjects, two each, written beside the manifest."""
        rows: list[Any] = self.stream.write_cells(self.folder, site, subjects, seed)
        return rows

    def release(self, **plan: Any) -> str:
        """The first version, under a plan with these changes; its state."""
        from flows.requests import Release
        from flows.update import release

        options = small_options()
        options = replace(options, plan=replace(options.plan, **plan))
        backbone = self.stream.write_backbone(self.folder / "backbone.safetensors")
        return release(self.workspace, "first", Release(ADAPTER, str(backbone), None, options.as_record())).state.value

    def learn(self, site: str) -> str:
        """Look at a site and learn any shift; what happened, in words."""
        from flows.run import LEARN_ON_ANY_SHIFT
        from flows.update import look_and_learn

        return look_and_learn(self.workspace, ADAPTER, site, None, LEARN_ON_ANY_SHIFT)

    def registry(self) -> Registry:
        """The workspace's registry, to be closed by the caller."""
        return open_registry(f"sqlite:///{self.workspace}/registry.db", f"{self.workspace}/artifacts")


def small_options() -> "AdapterOptions":
    """Seconds of training, and a gate that a handful of test images can satisfy."""
    from continual.domain.change_plan import ChangePlan
    from continual.learning import LoraShape, TrainingOptions
    from flows.adapter_context import AdapterOptions

    return AdapterOptions(
        image_size=64,
        lora=LoraShape(rank=4, alpha=8, blocks=2),
        training=TrainingOptions(steps=40, batch_size=16, lora_rate=3e-3, head_rate=1e-2, views=1),
        plan=ChangePlan(
            replay_samples=30, past_site_margin=-0.30, minimum_labelled=20, bootstrap_draws=200, permutations=199
        ),
    )


@pytest.fixture(scope="session")
def desk_at(stream: ModuleType) -> Callable[[Path], Desk]:
    """A desk in a folder of the test's choice."""
    return lambda folder: Desk(folder, stream)


@pytest.fixture
def desk(tmp_path: Path, stream: ModuleType) -> Desk:
    """An empty place to work."""
    return Desk(tmp_path, stream)


@pytest.fixture(scope="session")
def released_folder(tmp_path_factory: pytest.TempPathFactory, stream: ModuleType) -> Path:
    """A desk whose adapter has its first version, learnt on the first site; to be copied, never changed."""
    made = Desk(tmp_path_factory.mktemp("released"), stream)
    made.take_in(made.cells("first"), "first")
    assert made.release() == "accepted"
    return made.folder


@pytest.fixture
def released(released_folder: Path, tmp_path: Path, stream: ModuleType) -> Desk:
    """A desk of one's own with a first version."""
    shutil.copytree(released_folder, tmp_path / "desk")
    return Desk(tmp_path / "desk", stream)


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """What a subprocess of the command line gets: no settings of the machine, one thread, Prefect kept apart."""
    import os

    prefect_home = tmp_path_factory.mktemp("command-prefect")

    def make(**more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTINUAL_", "PREFECT_"))}
        quiet = {
            "CONTINUAL_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "PREFECT_HOME": str(prefect_home),
            "COLUMNS": "200",
        }
        return kept | quiet | more

    return make
