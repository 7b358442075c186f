"""Schedules on a real Prefect server: a run started as from its page, and one that its clock starts."""

import json
import shutil
import sys
import time
from pathlib import Path

import httpx
import pytest

PREFECT = Path(sys.executable).with_name("prefect")
SERVER_SECONDS = 240
RUN_SECONDS = 300
DONE = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def wait_for(what, seconds, said):
    """The first true value that `what` gives."""
    give_up = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < give_up, said()
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def desk(small_stream, tmp_path_factory):
    """A workspace whose adapter has a first version, and a manifest of a second site that nobody has taken in."""
    small_stream.load_libraries(tmp_path_factory.mktemp("prefect"))
    folder = tmp_path_factory.mktemp("deployed")
    made = small_stream.Desk(folder)
    made.take_in(made.cells("first"), "first")
    assert made.release() == "accepted"
    small_stream.write_manifest(folder / "incoming.csv", made.cells("second", tuple("abcdefghijkl"), seed=2))
    return made


@pytest.fixture(scope="module")
def address(start, tmp_path_factory, unused_port):
    """The API of a running Prefect server with a home of its own."""
    if not PREFECT.exists():
        pytest.fail("the prefect program is not beside the interpreter; install the project's requirements")
    home = tmp_path_factory.mktemp("prefect-server")
    server = start(PREFECT, "server", "start", "--port", unused_port, "--no-ui", PREFECT_HOME=str(home))
    api = f"http://127.0.0.1:{unused_port}/api"

    def healthy():
        assert server.poll() is None, server.log.read_text()
        try:
            return httpx.get(f"{api}/health", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(healthy, SERVER_SECONDS, server.log.read_text)
    yield api
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def prefect(address, desk, start):
    """A client of the server, to which `continual deploy` has given a workspace's three deployments."""
    deployer = start(
        *(sys.executable, "-c", "from flows.command_line import main; main()"),
        *("deploy", "--adapter", "cells", "--workspace", desk.workspace, "--cron", "* * * * *"),
        *("--manifest", desk.folder / "incoming.csv"),
        PREFECT_API_URL=address,
    )
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:

        def registered():
            assert deployer.poll() is None, deployer.log.read_text()
            return len(client.post("/deployments/filter", json={}).json()) == 3

        wait_for(registered, RUN_SECONDS, deployer.log.read_text)
        client.log = deployer.log
        yield client


def test_each_flow_is_registered_under_the_adapter_with_its_schedule(prefect, desk):
    deployments = prefect.post("/deployments/filter", json={}).json()
    assert {deployment["name"] for deployment in deployments} == {"cells"}
    entrypoints = sorted(deployment["entrypoint"] for deployment in deployments)
    assert entrypoints == ["flows.ingest.ingest", "flows.monitor.monitor", "flows.update.update"]
    for deployment in deployments:
        assert deployment["parameters"]["workspace"] == desk.workspace
        (schedule,) = deployment["schedules"]
        assert schedule["active"]
        assert schedule["schedule"]["cron"] == "* * * * *"


def test_ingest_started_as_from_the_page_takes_the_new_site_in(prefect, desk):
    deployment = prefect.get("/deployments/name/ingest/cells").json()

    def accepted():
        # A Prefect server on SQLite answers 5xx while another writer holds the file; its page asks again, too.
        answer = prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json={})
        return answer.json() if answer.is_success else None

    def ended_run():
        answer = prefect.get(f"/flow_runs/{started['id']}")
        return answer.json() if answer.is_success and answer.json()["state_type"] in DONE else None

    started = wait_for(accepted, RUN_SECONDS, prefect.log.read_text)
    ended = wait_for(ended_run, RUN_SECONDS, prefect.log.read_text)
    assert ended["state_type"] == "COMPLETED", json.dumps(ended["state"]) + prefect.log.read_text()
    with desk.registry() as registry:
        assert len(registry.samples.list("second")) == 24
        assert registry.samples.quarantine("second") == []


def test_the_clock_starts_a_run_by_itself_and_it_completes(prefect):
    """With SQLAlchemy 2.1 the scheduler plans nothing and says nothing: only a run that comes can tell."""
    deployment = prefect.get("/deployments/name/monitor/cells").json()
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }

    def completed():
        answer = prefect.post("/flow_runs/filter", json=wanted)
        return [run for run in answer.json() if run["auto_scheduled"]] if answer.is_success else []

    first = wait_for(completed, RUN_SECONDS, prefect.log.read_text)[0]
    assert first["parameters"]["adapter"] == "cells"
