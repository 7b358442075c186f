"""The server as a process: its port, its address, its workspace, its end."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from api.server import CANNOT_START, open_socket
from continual.domain.errors import ServiceError

ROOT = Path(__file__).parents[2]


def start(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONTINUAL_")}
    command = [sys.executable, "-m", "api.server", "--workspace", str(workspace), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_server_opens_a_new_workspace_and_stops_gracefully_in_the_middle_of_a_long_poll(bench, tmp_path):
    bench.champion("wbc")
    process = start(tmp_path, "--port", "0")
    try:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address is not None
        with httpx.Client(base_url=address.group(), timeout=30, trust_env=False) as client:
            tag = client.get("/v1/adapters/wbc/current").headers["etag"]
            threading.Timer(0.5, process.send_signal, [signal.SIGTERM]).start()
            began = time.monotonic()
            answer = client.get("/v1/adapters/wbc/current", params={"wait": 30}, headers={"if-none-match": tag})
            assert answer.status_code == 304
            assert time.monotonic() - began < 10
        assert process.wait(60) == 0
    finally:
        process.kill()
        _, said = process.communicate()
    assert said == ""


def test_a_port_in_use_ends_with_code_2_and_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(tmp_path / "w", "--port", str(port))
        _, said = process.communicate(timeout=60)
    assert process.returncode == CANNOT_START
    assert said == f"error: port {port} is in use on 127.0.0.1; stop the other process or pass --port\n"


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("no such host", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_cannot_be_had_names_the_remedy(host, port):
    with pytest.raises(ServiceError, match="pass"):
        open_socket(host, port)
