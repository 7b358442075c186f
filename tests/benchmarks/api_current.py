"""Requests per second of `GET /v1/adapters/{name}/current` on one worker with 16 connections, by wrk (Debian: wrk)."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from report import Row, arguments, publish

from continual.domain.adapters import CHAMPION, GateDecision, VersionDraft
from registry import open_registry

CONNECTIONS = 16
TARGET_PER_SECOND = 1500


def make_workspace(folder: Path) -> None:
    """A workspace with one accepted version; its files are small stand-ins, only the record is asked for."""
    from continual.settings import create_workspace, load_settings

    settings = load_settings(folder)
    create_workspace(settings)
    with open_registry(settings.resolved_database_url(), settings.resolved_artifacts_url()) as registry:
        draft = VersionDraft("cells", None, "naive", "0" * 64, ("a",), ("x", "y"), "balanced_accuracy", {"a": 0.9})
        version = registry.adapters.register(draft, {"record.json": b"{}"}, "benchmark")
        gate = GateDecision(accepted=True, findings=(), margin=-0.05, confidence=0.9)
        registry.adapters.promote("cells", version.number, gate, CHAMPION, "benchmark", "benchmark")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(port: int) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1)  # noqa: S310
            return
        except OSError:
            time.sleep(0.25)
    raise SystemExit("the server did not come up within 60 s")


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; apt-get install wrk")
    seconds = 3 if options.quick else 10
    with tempfile.TemporaryDirectory() as name:
        make_workspace(Path(name))
        port = free_port()
        server = subprocess.Popen([sys.executable, "-m", "api.server", "--workspace", name, "--port", str(port)])
        try:
            wait_until_ready(port)
            address = f"http://127.0.0.1:{port}/v1/adapters/cells/current"
            wrk = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", address]
            output = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
        finally:
            server.terminate()
            server.wait()
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0])
    errors = re.findall(r"(Socket errors.*|Non-2xx.*)", output)
    rows = [
        Row(
            f"GET current, {CONNECTIONS} connections",
            f"> {TARGET_PER_SECOND} /s",
            f"{rate:.0f} /s",
            rate > TARGET_PER_SECOND,
        ),
        Row("errors", "0", "; ".join(errors) or "0", not errors),
    ]
    publish(rows, {"wrk": output}, options.json)


if __name__ == "__main__":
    main()
