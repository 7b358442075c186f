"""Drift reports that leave the house: a real receiver checks what comes, how often, and under which id."""

import base64
import json
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from continual.domain.drift import Action, DriftReport, EvidenceOverTime, Verdict

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "alerts" / "README.md"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(40, 72))).decode()
REPORT = DriftReport(
    site="north/2",
    reference_site="north/2",
    verdict=Verdict.COVARIATE_SHIFT,
    action=Action.UPDATE,
    reason="Balanced accuracy fell from 0.81 to 0.62 on 40 labelled images.",
    alpha=0.05,
    reference_subjects=80,
    current_subjects=40,
    reference_samples=160,
    current_samples=60,
    quarantined=2,
    signals=(),
    over_time=EvidenceOverTime(55.0, 40.0, {"embeddings": 55.0}, {"embeddings": 20.8}, windows=3, since=2),
    adapter="cells",
    version=3,
)
FILE_AND_HANG = """
import sys, time
import flows.alerting.alerts
from flows.workplace import open_workplace
from tests_report import REPORT
with open_workplace(sys.argv[1]) as workplace:
    flows.alerting.alerts.file_report(workplace, REPORT)
    print("FILED", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="session")
def verify():
    """The receiver's check as the guide prints it."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "def verify" in block]
    made = {}
    exec(compile(block, str(GUIDE), "exec"), made)
    return made["verify"]


class Receiver:
    """An HTTP server on loopback that answers as told, then 204, and keeps what came."""

    def __init__(self):
        self.answers, self.got = [], []
        receiver = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((self.path, dict(self.headers.items()), body))
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                if status == 0:
                    time.sleep(headers["seconds"])
                    status = 204
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, str(value))
                self.end_headers()

            def log_message(self, *_words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hooks/secret-path"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def ids(self):
        return [headers["webhook-id"] for _path, headers, _body in self.got]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def second_receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def house(libraries, tmp_path, monkeypatch, receiver):
    """An open, empty workspace whose alerts go to the receiver, and to no Prefect server."""
    from flows.workplace import open_workplace

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_TIMEOUT_S", "2")
    with open_workplace(tmp_path / "workspace", create=True) as workplace:
        yield workplace


def deliveries(house):
    """Report, state, attempts and last error of every delivery, the oldest report first."""
    rows = reversed(house.registry.deliveries.list())
    return [(one.report, one.state.value, one.attempts, one.last_error) for one in rows]


def make_due(house, monkeypatch, **passed):
    """Let the time pass that a retry waits."""
    import flows.alerting.alerts

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(**passed)

    monkeypatch.setattr(flows.alerting.alerts, "datetime", Later)


def send(house):
    from flows.alerting.alerts import send_due

    return send_due(house)


def file(house, report=REPORT):
    from flows.alerting.alerts import file_report, send_after_look

    filed = file_report(house, report)
    send_after_look(house)
    return filed


def test_a_filed_report_arrives_once_signed_and_says_what_was_found(house, receiver, verify):
    filed = file(house)
    send(house)
    ((path, headers, body),) = receiver.got
    verify(SECRET, headers, body)
    assert path == "/hooks/secret-path"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "type": "continual.drift.covariate_shift",
        "timestamp": filed.created_at.isoformat(),
        "data": {
            "report": 1,
            "site": "north/2",
            "verdict": "covariate_shift",
            "action": "update",
            "reason": REPORT.reason,
            "adapter": "cells",
            "version": 3,
            "evidence": {"value": 55.0, "threshold": 40.0},
            "links": {"report": "/v1/drift-reports/1", "site": "/v1/sites/north%2F2/drift"},
        },
    }
    assert deliveries(house) == [(1, "delivered", 1, None)]


def test_the_guides_check_refuses_another_secret_a_changed_body_and_an_old_message(house, receiver, verify):
    file(house)
    ((_path, headers, body),) = receiver.got
    with pytest.raises(ValueError, match="not signed"):
        verify(OLD_SECRET, headers, body)
    with pytest.raises(ValueError, match="not signed"):
        verify(SECRET, headers, body.replace(b"update", b"ignore"))
    with pytest.raises(ValueError, match="not signed"):
        verify(SECRET, {**headers, "webhook-id": "another"}, body)
    with pytest.raises(ValueError, match="too old"):
        verify(SECRET, {**headers, "webhook-timestamp": str(int(time.time()) - 600)}, body)


def test_while_secrets_change_receivers_with_either_are_served(house, receiver, verify, monkeypatch):
    monkeypatch.setenv("CONTINUAL_WEBHOOK_SECRET", f"{SECRET} {OLD_SECRET}")
    from flows.workplace import open_workplace

    with open_workplace(house.settings.workspace) as again:
        file(again)
    ((_path, headers, body),) = receiver.got
    verify(SECRET, headers, body)
    verify(OLD_SECRET, headers, body)


def test_a_receiver_that_fails_twice_gets_the_same_message_thrice_under_one_id(house, receiver, verify, monkeypatch):
    receiver.answers = [(503, {}), (429, {})]
    file(house)
    assert deliveries(house) == [(1, "retrying", 1, "HTTP 503")]
    assert send(house) == []
    make_due(house, monkeypatch, minutes=1)
    send(house)
    assert deliveries(house) == [(1, "retrying", 2, "HTTP 429")]
    make_due(house, monkeypatch, minutes=10)
    send(house)
    assert deliveries(house) == [(1, "delivered", 3, None)]
    assert len(receiver.got) == 3
    assert len(set(receiver.ids())) == 1
    assert len({body for _path, _headers, body in receiver.got}) == 1
    for _path, headers, body in receiver.got:
        verify(SECRET, headers, body)


def test_a_redirect_is_not_followed_and_no_other_address_hears_of_it(house, receiver, second_receiver):
    receiver.answers = [(307, {"location": second_receiver.url})]
    file(house)
    assert second_receiver.got == []
    assert deliveries(house) == [(1, "retrying", 1, "HTTP 307")]


@pytest.mark.parametrize(("status", "said"), [(410, "wants no more (HTTP 410)"), (401, "refused (HTTP 401)")])
def test_a_refusal_is_final_until_somebody_asks_again(house, receiver, monkeypatch, status, said):
    receiver.answers = [(status, {})]
    file(house)
    make_due(house, monkeypatch, days=2)
    send(house)
    assert len(receiver.got) == 1
    assert deliveries(house) == [(1, "given_up", 1, said)]
    house.registry.deliveries.requeue(datetime.now(UTC))
    send(house)
    assert deliveries(house) == [(1, "delivered", 1, None)]
    assert len(set(receiver.ids())) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_what_retry_after_asks_for_is_granted(house, receiver, form):
    then = datetime.now(UTC) + timedelta(hours=9)
    receiver.answers = [(503, {"retry-after": "32400" if form == "seconds" else format_datetime(then, usegmt=True)})]
    file(house)
    (one,) = house.registry.deliveries.list()
    assert abs(one.next_attempt_at - then) < timedelta(minutes=1)


STRANGE = {"soon": 0.02, "-5": 0.02, "": 0.02, "9" * 40: 24, "Fri, 31 Dec 9999 23:59:59 GMT": 24}


@pytest.mark.parametrize(("header", "hours"), STRANGE.items())
def test_a_strange_retry_after_neither_fails_nor_waits_for_ever(house, receiver, header, hours):
    receiver.answers = [(503, {"retry-after": header})]
    file(house)
    (one,) = house.registry.deliveries.list()
    assert one.next_attempt_at - datetime.now(UTC) < timedelta(hours=hours, minutes=1)


def test_a_receiver_that_is_down_neither_fails_nor_holds_the_look_and_hears_later(house, receiver, monkeypatch):
    receiver.answers = [(0, {"seconds": 4})]
    began = time.monotonic()
    filed = file(house)
    assert time.monotonic() - began < 3.5
    assert filed.id == 1
    assert deliveries(house) == [(1, "retrying", 1, "no answer (ReadTimeout)")]
    receiver.close()
    make_due(house, monkeypatch, minutes=1)
    assert file(house, replace(REPORT, verdict=Verdict.CONCEPT_SHIFT)).id == 2
    assert deliveries(house)[0] == (1, "retrying", 2, "no answer (ConnectError)")
    assert deliveries(house)[1] == (2, "waiting", 0, None)


def test_a_backlog_does_not_make_a_look_wait_for_all_of_it(house, receiver, monkeypatch):
    receiver.answers = [(503, {})]
    file(house)
    for _ in range(8):
        house.registry.drift.add(REPORT, "test", [house.settings.webhooks()[0].name])
    receiver.answers = [(0, {"seconds": 0.8})] * 9
    make_due(house, monkeypatch, minutes=1)
    began = time.monotonic()
    file(house)
    assert time.monotonic() - began < 2 + 0.8 + 1.5
    assert 2 <= sum(state == "delivered" for _report, state, *_rest in deliveries(house)) <= 4


def test_attempts_end_after_twelve_and_days_after_seven(house, receiver, monkeypatch):
    from flows.alerting.alerts import MOST_ATTEMPTS

    receiver.answers = [(503, {})] * 30
    file(house)
    for passed in range(1, 20):
        make_due(house, monkeypatch, hours=8 * passed)
        send(house)
    assert deliveries(house) == [(1, "given_up", MOST_ATTEMPTS, "HTTP 503")]
    assert len(receiver.got) == MOST_ATTEMPTS == 12
    house.registry.drift.add(REPORT, "test", ["https://nobody.example#00000000"])
    make_due(house, monkeypatch, days=8)
    send(house)
    assert deliveries(house)[1] == (2, "given_up", 0, "given up 7 days after it was queued")


def test_what_nobody_came_to_send_has_its_attempt_however_old_it_is(house, receiver, monkeypatch):
    house.registry.drift.add(REPORT, "test", [house.settings.webhooks()[0].name])
    make_due(house, monkeypatch, days=8)
    send(house)
    assert (deliveries(house), len(receiver.got)) == ([(1, "delivered", 1, None)], 1)


def test_an_error_that_nobody_foresaw_waits_in_the_outbox_and_tells_no_secret(house, monkeypatch):
    def breaks(*_arguments):
        raise ImportError("no client for socks5://user:secret@proxy")

    monkeypatch.setattr("flows.alerting.alerts.post", breaks)
    file(house)
    assert deliveries(house) == [(1, "retrying", 1, "not sent (ImportError)")]


def test_each_address_has_its_own_delivery_and_one_that_is_away_does_not_hold_the_other(
    house, receiver, second_receiver, monkeypatch
):
    from flows.workplace import open_workplace

    receiver.answers = [(503, {})]
    monkeypatch.setenv("CONTINUAL_WEBHOOK_URL", f"{receiver.url}, {second_receiver.url},{second_receiver.url}")
    with open_workplace(house.settings.workspace) as both:
        file(both)
    assert sorted(state for _report, state, *_rest in deliveries(house)) == ["delivered", "retrying"]
    assert len(second_receiver.got) == 1
    assert receiver.ids() != second_receiver.ids()


def test_no_secret_of_an_address_is_stored(house, receiver, tmp_path):
    file(house)
    (one,) = house.registry.deliveries.list()
    assert re.fullmatch(rf"http://127\.0\.0\.1:{receiver.port}#[0-9a-f]{{8}}", one.target)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "workspace").glob("registry.db*"))
    assert b"127.0.0.1" in kept
    assert b"secret-path" not in kept
    assert SECRET.encode() not in kept


def test_killed_between_filing_and_sending_the_report_still_arrives(
    house, receiver, verify, tmp_path, command_environment
):
    text = repr(REPORT)
    for enum in (Verdict, Action):
        for member in enum:
            text = text.replace(repr(member), str(f"{enum.__name__}.{member.name}"))
    (tmp_path / "tests_report.py").write_text(
        "from continual.domain.drift import Action, DriftReport, EvidenceOverTime, Verdict\n" + f"REPORT = {text}\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", FILE_AND_HANG, str(house.settings.workspace)],
        env=command_environment(
            PYTHONPATH=f"{ROOT}:{tmp_path}", CONTINUAL_WEBHOOK_URL=receiver.url, CONTINUAL_WEBHOOK_SECRET=SECRET
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "FILED\n"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert receiver.got == []
    assert deliveries(house) == [(1, "waiting", 0, None)]
    send(house)
    ((_path, headers, body),) = receiver.got
    verify(SECRET, headers, body)
    assert json.loads(body)["data"]["site"] == "north/2"


def test_without_any_address_nothing_is_queued(house, monkeypatch, receiver):
    from flows.workplace import open_workplace

    monkeypatch.delenv("CONTINUAL_WEBHOOK_URL")
    with open_workplace(house.settings.workspace) as silent:
        file(silent)
    assert deliveries(house) == []
    assert receiver.got == []


def test_a_look_sends_what_it_files_and_one_that_repeats_the_last_sends_nothing(released, receiver, monkeypatch):
    from flows.monitor import look

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_SECRET", SECRET)
    rows = released.cells("second", tuple(f"u{number}" for number in range(24)), seed=50)
    released.take_in([replace(row, label="") for row in rows], "second", "cells")
    for _ in range(2):
        report = look(released.workspace, "cells", "second", now=True)
    (body,) = [json.loads(body) for _path, _headers, body in receiver.got]
    assert body["type"] == f"continual.drift.{report.verdict.value}" == "continual.drift.covariate_shift"
    assert (body["data"]["report"], body["data"]["action"]) == (report.id, report.action.value)
    subjects = {sample.subject for sample in released.registry().samples.list("second")}
    assert not any(subject in json.dumps(body) for subject in subjects)


def test_the_monitor_flow_sends_what_earlier_looks_could_not(released, receiver, monkeypatch):
    import flows.monitor
    from flows.workplace import open_workplace

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("CONTINUAL_WEBHOOK_SECRET", SECRET)
    with open_workplace(released.workspace) as workplace:
        workplace.registry.drift.add(REPORT, "test", [workplace.settings.webhooks()[0].name])
    # The tasks as plain functions: no Prefect server is needed for what they do.
    for name in ("monitor_site", "send_alerts"):
        monkeypatch.setattr(flows.monitor, name, getattr(flows.monitor, name).fn)
    assert flows.monitor.monitor.fn(released.workspace, "cells") == {}
    assert len(receiver.got) == 1


def test_a_prefect_server_that_is_away_does_not_fail_the_look_and_its_event_waits(house, receiver, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{nobody}/api"}):
        began = time.monotonic()
        assert file(house).id == 1
        assert time.monotonic() - began < 8
    found = {one.target.split(":")[0]: one for one in house.registry.deliveries.list()}
    assert found["http"].state.value == "delivered"
    event = found["prefect"]
    assert (event.state.value, event.attempts) == ("retrying", 1)
    assert event.last_error.startswith("the Prefect server took no event")
    make_due(house, monkeypatch, hours=1)
    assert send(house) == []  # a process that knows no server leaves it to one that does


@pytest.fixture
def continual(house, command_environment):
    """Runs `continual alerts` on the house; the ended process."""

    def run(*arguments, **environment):
        url = house.settings.webhook_url.get_secret_value()
        named = {"CONTINUAL_WEBHOOK_URL": url, "CONTINUAL_WEBHOOK_SECRET": SECRET} | environment
        command = "from flows.commands.command_line import main; main()"
        return subprocess.run(
            [sys.executable, "-c", command, "alerts", *map(str, arguments)],
            env=command_environment(PYTHONPATH=str(ROOT), **named),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_test_message_arrives_signed_or_its_failure_is_one_line(continual, receiver, verify):
    assert "delivered" in continual("test").stdout
    ((_path, headers, body),) = receiver.got
    verify(SECRET, headers, body)
    assert json.loads(body)["type"] == "continual.test"
    receiver.answers = [(401, {})]
    refused = continual("test")
    assert refused.returncode == 2
    assert "1 of 1 webhooks did not take the test message" in refused.stderr
    assert "refused (HTTP 401)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret-path" not in refused.stderr + refused.stdout


def test_a_test_message_without_an_address_names_the_settings(continual):
    said = continual("test", CONTINUAL_WEBHOOK_URL="")
    assert said.returncode == 2
    assert "set CONTINUAL_WEBHOOK_URL and CONTINUAL_WEBHOOK_SECRET" in said.stderr


def test_the_list_tells_states_and_sending_again_what_was_given_up_delivers_it(continual, house, receiver):
    workspace = ("--workspace", house.settings.workspace)
    receiver.answers = [(404, {})]
    file(house)
    listed = continual("list", *workspace, "--state", "given_up").stdout
    assert "given_up" in listed
    assert "refused (HTTP 404)" in listed
    assert f"http://127.0.0.1:{receiver.port}#" in listed
    assert "secret-path" not in listed
    assert "nothing is due" in continual("send", *workspace).stdout
    assert "report 1 to http://127.0.0.1" in continual("send", *workspace, "--given-up").stdout
    (told,) = json.loads(continual("list", *workspace, "--json").stdout)
    assert (told["report"], told["state"], told["last_error"]) == (1, "delivered", None)
    unknown = continual("list", *workspace, "--state", "lost")
    assert unknown.returncode == 2
    assert "--state is 'lost'; choose one of waiting, retrying, delivered, given_up" in unknown.stderr
