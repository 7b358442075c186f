"""Real processes for whole journeys: their environment, their end by process group, free ports, real images."""

import csv
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
STREAM = ROOT / "tests" / "flows" / "small_stream.py"
CONTINUAL = (sys.executable, "-c", "from flows.commands.command_line import main; main()")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def process_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """What each process gets: no settings of the machine, one thread, no telemetry, a Prefect home apart."""
    prefect_home = tmp_path_factory.mktemp("prefect")

    def make(**more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTINUAL_", "PREFECT_"))}
        quiet = {
            "PYTHONPATH": str(ROOT),
            "CONTINUAL_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            "PREFECT_HOME": str(prefect_home),
        }
        return kept | quiet | more

    return make


@pytest.fixture(scope="module")
def continual(
    process_environment: Callable[..., dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a verb of the command line to its end."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CONTINUAL, *map(str, arguments)],
            env=process_environment(**environment),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def start(
    process_environment: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts a program that stays; its whole process group is ended with the module. Output goes to `process.log`."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: object, **environment: str) -> subprocess.Popen[str]:
        log = tmp_path_factory.mktemp("log") / "output.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                env=process_environment(**environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        process.log = log  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield begin
    for process in reversed(started):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@pytest.fixture(scope="module")
def unused_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture(scope="session")
def small_stream() -> ModuleType:
    """Makers of small pictures, manifests and a tiny backbone, shared with the tests of the flows."""
    spec = importlib.util.spec_from_file_location("small_stream", STREAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_cells() -> Path:
    """The folder of blood-cell images from several hospitals."""
    folder = Path(os.environ.get("CONTINUAL_TEST_DATA") or SHARED / "data") / "white_blood_cells"
    if not (folder / "manifest.csv").is_file():
        pytest.skip("no real images: white_blood_cells is not under CONTINUAL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def real_backbone() -> Path:
    """The weights of DINOv2 small."""
    path = Path(os.environ.get("CONTINUAL_TEST_WEIGHTS") or SHARED / "weights") / "dinov2_small" / "model.safetensors"
    if not path.is_file():
        pytest.skip("no real backbone: dinov2_small/model.safetensors is not under CONTINUAL_TEST_WEIGHTS")
    return path


@pytest.fixture(scope="session")
def thinned_cells(real_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the first 25 images of three cell types at two sites."""
    kept: Counter[tuple[str, str]] = Counter()
    path = tmp_path_factory.mktemp("thinned") / "manifest.csv"
    with (real_cells / "manifest.csv").open(newline="") as whole, path.open("w", newline="") as thin:
        rows = csv.DictReader(whole)
        writer = csv.DictWriter(thin, rows.fieldnames or [])
        writer.writeheader()
        for row in rows:
            group = (row["site"], row["label"])
            wanted = row["site"] in {"barcelona", "bccd"} and row["label"] in {
                "neutrophil",
                "lymphocyte",
                "eosinophil",
            }
            if wanted and kept[group] < 25:
                kept[group] += 1
                writer.writerow(row | {"path": str(real_cells / row["path"])})
    assert sorted(kept.values()) == [25] * 6
    return path
