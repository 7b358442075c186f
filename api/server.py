"""`python -m api.server`: one worker process that serves a workspace; knows nothing of routes or models.

Builds every room from `continual.settings`. Ends with exit code 2 and one sentence when it cannot start.
"""

import argparse
import errno
import gc
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from api.application import create_app
from api.options import MEBIBYTE, AnyPredictor, ServiceOptions
from continual.domain.adapters import AdapterVersion
from continual.domain.errors import BackboneError, ContinualError, ServiceError
from continual.settings import Settings, create_workspace, load_settings
from registry import Registry, open_registry

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
GRACE_SECONDS = 10
"""How long requests that run when the server is told to end may take."""
CANNOT_START = 2


class DoorServer(uvicorn.Server):
    """uvicorn that also ends long polls when told to stop, and leaves with exit code 0."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """First signal: finish what runs. A second Ctrl+C: end at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self._stopping.set()


def open_socket(host: str, port: int) -> socket.socket:
    """A listening address of our own, taken before anything heavy loads; raises ServiceError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(f"host {host!r} is no address of this machine; pass --host 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Listening decides: two sockets may bind one port with SO_REUSEADDR, only one may listen.
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ServiceError(_refusal(host, port, error)) from error
    return listening


def _refusal(host: str, port: int, error: OSError | OverflowError) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"port {port} is in use on {host}; stop the other process or pass --port"
    if code == errno.EACCES:
        return f"port {port} on {host} needs more rights than this process has; pass --port 1024 or higher"
    if code is None:
        return f"port is {port}, must be 0 to 65535; pass another --port"
    return f"host {host!r} is no address of this machine; pass --host 127.0.0.1"


def options_of(settings: Settings, registry: Registry) -> ServiceOptions:
    """What the service is made with; backbones are read from the artifact store by their digest."""

    def load(version: AdapterVersion) -> AnyPredictor:
        # Learning brings torch: seconds that only the loading of a version may cost.
        from continual.learning import bound_threads, choose_device, load_predictor

        digest = version.backbone_digest
        if not registry.artifacts.has(digest):
            raise BackboneError(
                f"backbone {digest[:12]} of version {version.number} is not in the artifact store; "
                "restore it, or point CONTINUAL_ARTIFACTS_URL to the store that has it"
            )
        bound_threads(settings.threads)
        device = str(choose_device(settings.device))
        return load_predictor(registry.artifacts.get(digest), registry.adapters.files(version), device)

    return ServiceOptions(
        predictor_loader=load,
        api_token=settings.api_token,
        max_upload_bytes=settings.upload_mib * MEBIBYTE,
        preload=True,
    )


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl+C; raises ServiceError when the address cannot be had."""
    stopping = threading.Event()
    with open_socket(host, port) as listening:
        create_workspace(settings)
        with open_registry(settings.resolved_database_url(), settings.resolved_artifacts_url()) as registry:
            app = create_app(registry, options_of(settings, registry), stopping)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
            host_shown = f"[{host}]" if ":" in host else host
            address = f"http://{host_shown}:{listening.getsockname()[1]}"
            print(f"Serving on {address}\nDashboard: {address}/dashboard\nReference: {address}/docs", flush=True)
            # What exists now lives as long as the process: the collector need not walk it again.
            gc.freeze()
            DoorServer(config, stopping).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 after a graceful stop, 2 when the server cannot start."""
    parser = argparse.ArgumentParser(prog="python -m api.server", description="Serve a workspace over HTTP.")
    parser.add_argument("--workspace", type=Path, default=None, help="folder of the workspace")
    parser.add_argument("--host", default=DEFAULT_HOST, help=f"address to listen on (default {DEFAULT_HOST})")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port (default {DEFAULT_PORT}; 0: any free)")
    given = parser.parse_args(arguments)
    try:
        serve(load_settings(given.workspace), given.host, given.port)
    except ContinualError as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
