"""Schedules on a real Prefect server: a run started as from its page, and one that its clock starts."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

PREFECT = Path(sys.executable).with_name("prefect")
SERVER_SECONDS = 240
RUN_SECONDS = 300
AUTOMATION_SECONDS = 60
GUIDE = Path(__file__).parents[2] / "docs" / "alerts" / "README.md"
FILE_REPORTS = """
import sys
from dataclasses import replace
from continual.domain.drift import Action, DriftReport, EvidenceOverTime, Verdict
from flows.alerting.alerts import channels, file_report, send_after_look
from flows.workplace import open_workplace

ours = []
with open_workplace(sys.argv[1]) as workplace:
    for action in (Action.REQUEST_LABELS, Action.UPDATE):
        evidence = EvidenceOverTime(55.0, 40.0, {"embeddings": 55.0}, {"embeddings": 20.0}, windows=1, since=1)
        counted = ("Performance fell.", 0.05, 9, 9, 9, 9, 0, ())
        report = DriftReport("first", "first", Verdict.COVARIATE_SHIFT, action, *counted)
        filed = file_report(workplace, replace(report, over_time=evidence, adapter="cells", version=1))
        ours.append(filed.id)
        send_after_look(workplace)
    # Looks on the clock file reports of their own.
    queued = [one for one in workplace.registry.deliveries.list() if one.report in ours]
    for delivery in queued:
        print(delivery.target, delivery.state.value, delivery.id, delivery.report)
    (channel,) = channels(workplace.settings)
    # As after a kill between the sending and its note: the same event again.
    assert channel.send(queued[0].id, filed).delivered
"""
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
        *(sys.executable, "-c", "from flows.commands.command_line import main; main()"),
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


def test_the_guides_automation_starts_the_update_of_the_site_whose_report_asks_for_it(
    prefect, address, desk, process_environment
):
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (automation,) = [block for block in blocks if "Automation(" in block]
    environment = process_environment(PREFECT_API_URL=address)

    def run(script, *arguments):
        command = [sys.executable, "-c", script, *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    run(automation.replace('"white-blood-cells"', '"cells"'))
    said = [line.split() for line in run(FILE_REPORTS, desk.workspace).splitlines()]
    assert [(target, state) for target, state, *_rest in said] == [("prefect", "delivered")] * 2
    update = prefect.get("/deployments/name/update/cells").json()

    def events():
        wanted = {"filter": {"event": {"prefix": ["continual.drift."]}}, "limit": 50}
        answer = prefect.post("/events/filter", json=wanted)
        found = {event["id"]: event for event in answer.json()["events"]} if answer.is_success else {}
        return found if {number for _target, _state, number, _report in said} <= set(found) else None

    def started():
        answer = prefect.post("/flow_runs/filter", json={"deployments": {"id": {"any_": [update["id"]]}}})
        runs = answer.json() if answer.is_success else []
        # Looks on the clock may call for updates of their own, at the second site.
        ours = [run for run in runs if run["parameters"].get("site") == "first"]
        return [run for run in ours if (run["created_by"] or {}).get("type") == "AUTOMATION"]

    (run_started,) = wait_for(started, AUTOMATION_SECONDS, prefect.log.read_text)
    assert run_started["parameters"] == {"workspace": desk.workspace, "adapter": "cells", "site": "first"}
    told = wait_for(events, AUTOMATION_SECONDS, prefect.log.read_text)
    for _target, _state, number, report in said:
        event = told[number]
        assert event["event"] == "continual.drift.covariate_shift"
        assert event["resource"]["prefect.resource.id"] == "continual.site.first"
        assert event["payload"]["report"] == int(report)
        assert event["payload"]["evidence"] == {"value": 55.0, "threshold": 40.0}
    actions = {told[number]["resource"]["continual.action"] for _target, _state, number, _report in said}
    assert actions == {"request_labels", "update"}
    # One report asked for labels, one for an update, and that one's event came twice: one run, however long one waits.
    time.sleep(4)
    assert len(started()) == 1
