"""The main job on real images: run a stream, run it again, serve it, and read back the very version it made."""

import csv
import hashlib
import json
import math
import re
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

SITES = ["barcelona", "bccd"]
ADAPTER = "white-blood-cells"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("stream") / "wbc"


@pytest.fixture(scope="module")
def run_stream(continual, thinned_cells, real_backbone, workspace):
    """`continual run` over the two sites, Prefect in process and in the workspace as for any user; its result."""

    def run(name, *more):
        result = workspace.parent / name
        ended = continual(
            *("run", "--manifest", thinned_cells, "--sites", ",".join(SITES), "--adapter", ADAPTER),
            *("--backbone", real_backbone, "--image-size", 70, "--steps", 60, "--workspace", workspace),
            *("--lora-blocks", 2, "--replay-samples", 30, "--margin", -0.3, "--drop", 0.3),
            *("--json", result, *more),
            PREFECT_HOME=str(workspace / "prefect"),
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        return json.loads(result.read_text()), ended.stdout

    return run


@pytest.fixture(scope="module")
def first_run(run_stream):
    return run_stream("result.json", "--compare", "naive")[0]


@pytest.fixture(scope="module")
def server(first_run, start, workspace):
    """A client of the workspace's server."""
    process = start(sys.executable, "-m", "api.server", "--workspace", workspace, "--port", "0")
    give_up = time.monotonic() + 120
    while (address := re.search(r"http://127\.0\.0\.1:\d+", process.log.read_text())) is None:
        assert process.poll() is None, process.log.read_text()
        assert time.monotonic() < give_up
        time.sleep(0.1)
    with httpx.Client(base_url=address.group(), timeout=180, trust_env=False) as client:
        yield client
    process.terminate()
    assert process.wait(30) == 0


def assert_is_share(value):
    assert isinstance(value, float)
    assert 0 <= value <= 1


def test_the_result_holds_what_a_reader_of_it_needs(first_run):
    assert first_run["sites"] == SITES
    assert first_run["metric"] == "balanced_accuracy"
    matrix = first_run["result_matrix"]
    assert len(matrix) == len(first_run["versions"]) == 2
    for row in matrix:
        assert len(row) == len(SITES)
        for value in row:
            assert_is_share(value)
    assert_is_share(first_run["acc"])
    for name in ("bwt", "fwt", "worst_site_drop"):
        assert math.isfinite(first_run[name])
        assert -1 <= first_run[name] <= 1
    assert set(first_run["forgetting"]) == set(SITES)
    assert set(first_run["seconds"]) >= {"ingest", "release", "update"}
    assert all(seconds >= 0 for seconds in first_run["seconds"].values())
    assert set(first_run["drift"]) == {"bccd"}
    assert first_run["drift"]["bccd"] == "covariate_shift"
    for number, version in enumerate(first_run["versions"], start=1):
        assert version["number"] == number
        assert re.fullmatch(r"[0-9a-f]{64}", version["digest"])
        assert version["state"] in {"accepted", "rejected"}
    assert [version["strategy"] for version in first_run["versions"]] == ["naive", "replay_ewc"]
    accepted = [version["number"] for version in first_run["versions"] if version["state"] == "accepted"]
    assert first_run["champion"] == max(accepted)


def test_the_derived_scores_follow_from_the_matrix_of_versions_in_service(first_run):
    matrix = first_run["result_matrix"]
    last = matrix[first_run["champion"] - 1]
    assert first_run["acc"] == pytest.approx(sum(last) / 2)
    assert first_run["bwt"] == pytest.approx(last[0] - matrix[0][0])
    assert first_run["forgetting"] == pytest.approx({"barcelona": matrix[0][0] - last[0], "bccd": 0.0})
    assert first_run["fwt"] == pytest.approx(matrix[0][1] - 1 / 3)
    assert first_run["worst_site_drop"] == pytest.approx(matrix[0][0] - last[0])


def test_the_reference_is_measured_beside_it_and_registers_nothing(first_run):
    naive = first_run["references"]["naive"]
    assert len(naive["result_matrix"]) == 2
    assert naive["result_matrix"][0] == first_run["result_matrix"][0]
    assert len(first_run["versions"]) == 2


def test_a_second_run_ingests_nothing_and_trains_nothing(first_run, run_stream):
    second, said = run_stream("again.json")
    said = " ".join(said.split())
    for site in SITES:
        assert f"{site}: 0 new, 75 already stored, 0 quarantined; nothing ingested twice" in said
    assert "bccd: nothing new" in said
    same = ("result_matrix", "versions", "champion", "acc", "bwt", "fwt", "forgetting", "drift")
    assert {name: second[name] for name in same} == {name: first_run[name] for name in same}


def test_the_server_names_the_champion_and_confirms_what_has_not_changed(first_run, server):
    answer = server.get(f"/v1/adapters/{ADAPTER}/current")
    current = answer.json()
    listed = first_run["versions"][first_run["champion"] - 1]
    assert (current["number"], current["digest"]) == (listed["number"], listed["digest"])
    assert current["metrics"]["barcelona"] == first_run["result_matrix"][first_run["champion"] - 1][0]
    again = server.get(f"/v1/adapters/{ADAPTER}/current", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_file_of_the_version_is_the_one_its_digest_names(server):
    links = server.get(f"/v1/adapters/{ADAPTER}/current").json()["links"]["files"]
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "record.json"} <= set(links)
    for link in links.values():
        data = server.get(link["href"]).content
        assert hashlib.sha256(data).hexdigest() == link["sha256"]
        assert len(data) == link["size_bytes"]


def test_an_image_is_scored_by_the_champion(first_run, server, thinned_cells):
    with thinned_cells.open(newline="") as file:
        row = next(csv.DictReader(file))
    image = Path(row["path"]).read_bytes()
    answer = server.post(f"/v1/adapters/{ADAPTER}/predict", params={"site": "bccd"}, content=image)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["version"] == first_run["champion"]
    assert set(said["scores"]) == {"eosinophil", "lymphocyte", "neutrophil"}
    assert sum(said["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert said["label"] == max(said["scores"], key=said["scores"].get)
    assert said["drift"]["verdict"] == "covariate_shift"


def test_the_drift_report_is_there_for_other_systems(first_run, server):
    latest = server.get("/v1/sites/bccd/drift").json()["latest"]
    assert latest["verdict"] == first_run["drift"]["bccd"]
    assert latest["reference_site"] == "barcelona"
    assert any(signal["alarm"] for signal in latest["signals"])
    assert server.get("/v1/sites/barcelona/drift").json()["latest"] is None


def test_the_server_is_ready_and_its_dashboard_asks_nobody_else(server):
    assert server.get("/v2/health/ready").status_code == 200
    page = server.get("/dashboard")
    assert page.status_code == 200
    assert ADAPTER in page.text
    named = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']+)["']""", page.text)
    assert [address for address in named if re.match(r"(?:[a-z]+:)?//", address)] == []
    for address in named:
        if address.startswith("/static/") and address.split("?")[0].endswith((".js", ".css")):
            assert server.get(address).status_code == 200


def test_nothing_is_served_that_a_file_name_could_tell(server, thinned_cells):
    with thinned_cells.open(newline="") as file:
        subjects = [row["subject"] for row in csv.DictReader(file)]
    pages = [server.get(path).text for path in ("/v1/ledger", "/v1/sites", "/v1/updates", "/dashboard", "/metrics")]
    assert [subject for subject in subjects if any(subject in page for page in pages)] == []


def test_serving_on_a_port_in_use_ends_with_code_2_and_one_line(continual, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = continual("serve", "--workspace", tmp_path / "workspace", "--port", port)
    assert ended.returncode == 2
    assert ended.stderr == f"error: port {port} is in use on 127.0.0.1; stop the other process or pass --port\n"
