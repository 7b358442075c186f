"""The pages a person opens: what they say, that they draw, and that nothing comes from another machine."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from continual.domain.digests import sha256_bytes
from continual.domain.drift import Action, Verdict
from continual.domain.samples import CleanImage, QuarantineEntry

OUTSIDE = re.compile(r"""(?:src|href|action|url)\s*[=(:]\s*["']?(?:https?:)?//""", re.IGNORECASE)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def hospitals(bench) -> None:
    """Three sites with images, two versions, one rejected, and one look at each of two sites."""
    for place, site in enumerate(("north", "south", "east")):
        images = [
            CleanImage(
                digest=sha256_bytes(f"{site}{index}".encode()),
                site=site,
                subject=f"{index:016x}",
                label="dark" if index % 2 else None,
                data=bench.png(100 + 10 * place + index),
                width=64,
                height=64,
                acquired_at=datetime(2026, 3, 1, tzinfo=UTC),
            )
            for index in range(4)
        ]
        held = [QuarantineEntry(site, 9, sha256_bytes(site.encode()), "blank exposure; check the exposure")] * place
        bench.registry.samples.record(site, images, held, "test")
    bench.champion("wbc")
    bench.champion("wbc", parent=1, trained_on=("north", "south"))
    bench.rejected("wbc", parent=2)
    bench.look("north", Verdict.NO_DRIFT, Action.NONE, "no family alarms")
    bench.look("south", Verdict.DATA_FAULT, Action.QUARANTINE, "12 of 40 images are <b>broken</b>")


def test_dashboard_tells_each_site_what_to_do_and_why(door, hospitals):
    page = door.http.get("/dashboard").text
    assert "Fix the scanner" in page
    assert "Nothing to do" in page
    assert "Wait for the first check" in page
    assert "<strong>1 of 3</strong> site needs you" in re.sub(r"\s+", " ", page)
    assert page.index("Fix the scanner") < page.index("Nothing to do")
    assert "Balanced accuracy" in page
    assert "falls by 0.30" in page


@pytest.mark.parametrize("page", ["/dashboard", "/v1/sites"])
def test_samples_are_counted_by_the_database_and_not_read(door, hospitals, page):
    asked = []
    sqlalchemy.event.listen(
        door.registry.samples._database.engine, "before_cursor_execute", lambda *said: asked.append(said[2])
    )
    assert door.http.get(page).status_code == 200
    assert [statement for statement in asked if "pixel_statistics" in statement] == []
    assert any("count(" in statement for statement in asked)


def test_what_comes_from_the_registry_is_escaped(door, hospitals):
    page = door.http.get("/dashboard").text
    assert "<b>broken</b>" not in page
    assert "&lt;b&gt;broken&lt;/b&gt;" in page


def test_matrix_in_the_page_holds_the_versions_metrics(door, hospitals, bench):
    page = door.http.get("/dashboard", params={"adapter": "wbc"}).text
    found = re.search(r'<script type="application/json" id="matrix-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    matrix = json.loads(found.group(1))
    assert matrix["sites"][:2] == ["north", "south"]
    assert matrix["versions"] == ["v1", "v2 champion", "v3 rejected"]
    stored = bench.registry.adapters.get("wbc", 2).metrics
    assert matrix["values"][1][:2] == [stored["north"], stored["south"]]


def test_figures_of_an_earlier_test_split_are_marked_and_explained(door, hospitals, bench):
    assert "earlier test split" not in door.http.get("/dashboard").text
    bench.tested.update(north="a" * 64, south="b" * 64)
    bench.champion("chest")
    bench.tested["south"] = "c" * 64
    bench.champion("chest", parent=1, trained_on=("north", "south"))
    page = door.http.get("/dashboard", params={"adapter": "chest"}).text
    found = re.search(r'<script type="application/json" id="matrix-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert json.loads(found.group(1))["text"] == [["<b>0.91</b>", "0.74*"], ["<b>0.91</b>", "<b>0.79</b>"]]
    assert "0.740*" in page
    assert "Of an earlier test split: patients or labels have come since" in page


def test_running_and_finished_updates_change_what_a_card_says(door, hospitals, bench):
    update = bench.registry.updates.begin("wbc", "south", 2, {}, "test")
    assert "Update running" in door.http.get("/dashboard").text
    bench.registry.updates.finish(update.id, 3, "rejected", {"learn": 1.0})
    assert "Update rejected by the gate" in door.http.get("/dashboard").text
    listed = door.http.get("/v1/updates", params={"adapter": "wbc"}).json()
    assert (listed[0]["outcome"], listed[0]["version"]) == ("rejected", 3)


def test_selector_appears_with_a_second_adapter_and_chooses_it(door, hospitals, bench):
    assert "<select" not in door.http.get("/dashboard").text
    bench.champion("chest")
    page = door.http.get("/dashboard", params={"adapter": "chest"}).text
    assert '<option value="chest" selected>' in page


def test_empty_workspace_says_what_to_type_next(door):
    page = door.http.get("/dashboard").text
    assert "Nothing here yet" in page
    assert "continual demo" in page


def test_front_page_leads_to_the_dashboard_and_pages_have_language_and_title(door, hospitals):
    assert door.http.get("/", follow_redirects=True).url.path == "/dashboard"
    for path in ("/dashboard", "/docs"):
        page = door.http.get(path).text
        assert '<html lang="en">' in page
        assert re.search(r"<title>[^<]+</title>", page)


def test_no_page_and_no_style_names_an_address_outside(door, hospitals):
    for path in ("/dashboard", "/docs", "/assets/dashboard.css", "/assets/dashboard.js", "/assets/docs.js"):
        text = door.http.get(path).text
        assert not OUTSIDE.search(text), path
        assert "http" not in re.sub(r"HTTP reference|http-equiv", "", text), path


def test_every_response_carries_security_headers_and_scripts_stay_our_own(door, hospitals):
    for path in ("/dashboard", "/docs", "/v1/adapters", "/nothing", "/assets/plotly.min.js"):
        headers = door.http.get(path).headers
        policy = headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy


def test_assets_are_served_from_installed_packages_and_nothing_else_is(door):
    assert b"plotly.js v" in door.http.get("/assets/plotly.min.js").content[:200]
    assert len(door.http.get("/assets/swagger-ui-bundle.js").content) > 500_000
    for name in ("..%2fserver.py", "server.py", "registry.db"):
        assert door.http.get(f"/assets/{name}").status_code == 404


def test_reference_describes_every_public_address(door):
    paths = door.http.get("/openapi.json").json()["paths"]
    for path in (
        "/v1/adapters/{name}/current",
        "/v1/adapters/{name}/versions/{number}/files/{file}",
        "/v1/adapters/{name}/aliases/{alias}",
        "/v1/adapters/{name}/rollback",
        "/v1/adapters/{name}/predict",
        "/v2/models/{name}/infer",
        "/v1/sites/{site}/drift",
        "/v1/drift-reports/{number}",
        "/v1/ledger/verify",
    ):
        assert path in paths


def test_sites_and_drift_reports_are_told_in_json(door, hospitals):
    sites = {site["site"]: site for site in door.http.get("/v1/sites").json()}
    assert list(sites) == ["north", "south", "east"]
    assert (sites["south"]["samples"], sites["south"]["labelled"], sites["south"]["quarantined"]) == (4, 2, 1)
    drift = door.http.get(sites["south"]["links"]["drift"]).json()
    assert (drift["latest"]["verdict"], len(drift["history"])) == ("data_fault", 1)
    assert drift["latest"]["over_time"]["families"] == {"embeddings": 2.5}
    assert door.http.get(f"/v1/drift-reports/{drift['latest']['id']}").json()["quarantined"] == 12
    assert door.http.get("/v1/sites/east/drift").json()["latest"] is None
    assert door.http.get("/v1/sites/west/drift").status_code == 404
    assert door.http.get("/v1/drift-reports/999").status_code == 404


def test_metrics_count_requests_by_route_and_show_champion_drift_and_quarantine(door, hospitals, bench):
    for _ in range(3):
        door.http.get("/v1/adapters/wbc/current")
    refused = [QuarantineEntry("broken", 1, "f" * 64, "blank exposure; check the exposure")]
    bench.registry.samples.record("broken", [], refused, "test")
    door.http.get("/no/such/page")
    door.http.request("INVENTED", "/v1/adapters")
    text = door.http.get("/metrics").text
    current = 'method="GET",route="/v1/adapters/{name}/current",status="200"'
    assert f"continual_requests_total{{{current}}} 3.0" in text
    assert 'route="unmatched",status="404"' in text
    assert "INVENTED" not in text
    assert 'continual_request_latency_ms_bucket{le="1.0",route="/v1/adapters/{name}/current"}' in text
    assert 'continual_champion_version{adapter="wbc"} 2.0' in text
    assert 'continual_drift_alarm{adapter="wbc",site="south"} 1.0' in text
    assert 'continual_drift_alarm{adapter="wbc",site="north"} 0.0' in text
    assert re.findall(r'continual_drift_alarm{adapter="(.*)",site="east"} (\S+)', text) == [("", "0.0")]
    assert 'continual_drift_evidence{adapter="wbc",site="south"} 2.5' in text
    assert 'continual_drift_evidence_limit{adapter="wbc",site="south"} 40.0' in text
    assert 'continual_quarantined_images{site="east"} 1.0' in text
    assert 'continual_quarantined_images{site="broken"} 1.0' in text


def test_metrics_tell_verdicts_as_states_and_reports_as_counts_over_restarts(door, hospitals, bench):
    bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE)
    latest = bench.registry.drift.latest("south")
    text = door.http.get("/metrics").text
    states = re.findall(r'continual_drift_verdict{adapter="wbc",site="south",verdict="(\w+)"} (\S+)', text)
    assert dict(states) == {verdict.value: "0.0" for verdict in Verdict} | {"covariate_shift": "1.0"}
    assert 'continual_drift_reports_total{adapter="wbc",site="south",verdict="covariate_shift"} 2.0' in text
    assert 'continual_drift_reports_total{adapter="wbc",site="south",verdict="no_drift"} 0.0' in text
    looked = re.search(r'continual_drift_last_look_timestamp_seconds{adapter="wbc",site="south"} (\S+)', text)
    assert looked is not None
    assert float(looked.group(1)) == pytest.approx(latest.created_at.timestamp(), abs=1e-3)
    assert 'site="east",verdict' not in text


def test_metrics_count_alerts_by_state(door, hospitals, bench):
    report = bench.registry.drift.get(bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE))
    bench.registry.drift.add(report, "test", ["https://desk.example#00000001", "prefect"])
    one = bench.registry.deliveries.claim("prefect", datetime.now(UTC), timedelta(minutes=5))
    bench.registry.deliveries.failed(one.id, "refused (HTTP 410)", None)
    text = door.http.get("/metrics").text
    states = re.findall(r'continual_alert_deliveries{state="(\w+)"} (\S+)', text)
    assert dict(states) == {"waiting": "1.0", "retrying": "0.0", "delivered": "0.0", "given_up": "1.0"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("path", "drawn"), [("/dashboard", "heatmaplayer"), ("/docs", "opblock-summary-path")])
def test_a_real_browser_draws_the_page_and_asks_no_other_machine(door, hospitals, tmp_path, path, drawn):
    log = tmp_path / "requests.json"
    # Chromium's own calls home go nowhere; what the page itself asks for is told apart by its initiator.
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-default-apps --virtual-time-budget=8000 --dump-dom"
    )
    command = [
        CHROMIUM,
        *flags.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={log}",
        door.url + path,
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    assert drawn in page
    details = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {each["url"] for each in details if each.get("initiator") == door.url}
    assert len(asked) >= 3
    assert all(url.startswith(door.url + "/") for url in asked), asked
