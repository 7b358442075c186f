"""A released workspace of one small site, and makers of more; plain functions of the flows, no Prefect server."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Desk = Any
"""The class of that name in `small_stream.py`, which is loaded by its path."""


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


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory, stream: ModuleType) -> None:
    """Prefect and torch, loaded the way these tests need them."""
    stream.load_libraries(tmp_path_factory.mktemp("prefect"))


@pytest.fixture
def desk(tmp_path: Path, stream: ModuleType, libraries: None) -> Desk:
    """An empty place to work."""
    return stream.Desk(tmp_path)


@pytest.fixture(scope="session")
def released_folder(tmp_path_factory: pytest.TempPathFactory, stream: ModuleType, libraries: None) -> Path:
    """A desk whose adapter has its first version, learnt on the first site; to be copied, never changed."""
    made = stream.Desk(tmp_path_factory.mktemp("released"))
    made.take_in(made.cells("first"), "first")
    assert made.release() == "accepted"
    return made.folder


@pytest.fixture
def released(released_folder: Path, tmp_path: Path, stream: ModuleType) -> Desk:
    """A desk of one's own with a first version."""
    shutil.copytree(released_folder, tmp_path / "desk")
    return stream.Desk(tmp_path / "desk")


@pytest.fixture
def make_bench(desk: Desk, stream: ModuleType) -> Callable[..., Any]:
    """Makes a benchmark of two small sites: `run(**plan)` returns its JSON, which lies at `run.out`."""
    from flows.benchmarks.benchmark import BenchmarkPlan, run_benchmark
    from flows.requests import Incoming

    def make(subjects: int, steps: int, strategies: tuple[str, ...]) -> Any:
        names = tuple(f"t{number}" for number in range(subjects))
        rows = [*desk.cells("first", names, seed=1), *desk.cells("second", names, seed=2)]
        manifest = stream.write_manifest(desk.folder / "manifest.csv", rows)
        backbone = stream.write_backbone(desk.folder / "backbone.safetensors")
        options = stream.small_options()
        options = replace(options, training=replace(options.training, steps=steps))
        plan = BenchmarkPlan(("first", "second"), strategies, str(backbone), None, options, 1, 1, (4,))

        def run(**changed: Any) -> Any:
            return run_benchmark(
                desk.workspace, Incoming(str(manifest)), replace(plan, **changed), desk.folder / "out.json"
            )

        run.out, run.workspace, run.manifest = desk.folder / "out.json", desk.workspace, manifest
        return run

    return make


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """What a subprocess of the command line gets: no settings of the machine, one thread, Prefect kept apart."""
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
