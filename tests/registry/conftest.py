"""A real PostgreSQL beside SQLite for every store test, and the makers of test records."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from registry import open_registry
from registry.tables import Base

POSTGRES = Path("/usr/lib/postgresql/15/bin")
CHILD = Path(__file__).with_name("child_process.py")
ROOT = Path(__file__).parents[2]


def _load_child():
    spec = importlib.util.spec_from_file_location("registry_child_process", CHILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make():
    """Makers of pictures, drafts and files: `make.images(3)`, `make.draft()`, `make.files()`, `make.accepted`."""
    child = _load_child()
    return SimpleNamespace(
        images=child.make_images, draft=child.make_draft, files=child.make_files, accepted=child.ACCEPTED
    )


class Child:
    """One process of the nursery, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, ask, output, arguments):
        self._ask = ask
        os.mkfifo(output)
        self.number = ask([str(output), *map(str, arguments)])
        self.stdout = output.open()
        self.returncode = None

    def kill(self):
        if self.returncode is None:
            os.kill(self.number, signal.SIGKILL)

    def wait(self):
        if self.returncode is None:
            self.returncode = self._ask(self.number)

    def communicate(self):
        said = self.stdout.read()
        self.wait()
        return said


@pytest.fixture(scope="session")
def nursery():
    """The process that forks children: loading the libraries anew in each would take a second of processor time."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(order):
        print(json.dumps(order), file=process.stdin, flush=True)
        return int(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


@pytest.fixture
def start_child(nursery, tmp_path):
    """Starts one verb of `child_process.py`; whatever still runs at the end is killed by its process id."""
    started = []

    def start(*arguments):
        started.append(Child(nursery, tmp_path / f"child-{len(started)}", arguments))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


class PostgresServer:
    """One throw-away cluster on a free loopback port."""

    def __init__(self, folder, port):
        self.port = port
        self._made = 0
        as_postgres = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(
            [POSTGRES / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **as_postgres,
        )
        settings = [f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1", "fsync=off", "max_wal_size=64MB"]
        options = [part for setting in settings for part in ("-c", setting)]
        self.process = subprocess.Popen(
            [POSTGRES / "postgres", "-D", folder / "data", "-p", str(port), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **as_postgres,
        )

    def url(self, database):
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, statement):
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def wait(self):
        give_up = time.monotonic() + 30
        while True:
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def emptied(self):
        """The shared migrated database without its rows: far quicker than a copy for each test."""
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables if table.name != "counters")
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=shared"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {tables}")
            connection.execute("UPDATE counters SET value = 0")
        return self.url("shared")

    def create(self, template):
        self._made += 1
        name = f"test_{self._made}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def stop(self):
        # The data is thrown away: an immediate stop spares the shutdown checkpoint.
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A running PostgreSQL with one migrated database to copy from."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("PostgreSQL 15 binaries are not installed")
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="continual-postgres-", dir=memory if memory.is_dir() else None))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = PostgresServer(folder, port)
    try:
        server.wait()
        server.run("CREATE DATABASE migrated")
        open_registry(server.url("migrated"), str(tmp_path_factory.mktemp("artifacts"))).close()
        server.run("CREATE DATABASE shared TEMPLATE migrated")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request, tmp_path):
    """The URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    return request.getfixturevalue("postgres").create("template0")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory):
    """A migrated SQLite file, to be copied: faster than migrating one for each test."""
    folder = tmp_path_factory.mktemp("migrated")
    open_registry(f"sqlite:///{folder}/registry.db", str(folder / "artifacts")).close()
    return folder / "registry.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path, migrated_sqlite):
    """The URL of a migrated database without any row."""
    if request.param == "sqlite":
        shutil.copy(migrated_sqlite, tmp_path / "registry.db")
        return f"sqlite:///{tmp_path}/registry.db"
    return request.getfixturevalue("postgres").emptied()


@pytest.fixture(params=["sqlite", "postgresql"])
def own_database(request, tmp_path, migrated_sqlite):
    """The URL of a migrated database whose schema the test may change."""
    if request.param == "sqlite":
        shutil.copy(migrated_sqlite, tmp_path / "registry.db")
        return f"sqlite:///{tmp_path}/registry.db"
    return request.getfixturevalue("postgres").create("migrated")


@pytest.fixture
def artifacts(tmp_path):
    """A folder for artifacts."""
    return str(tmp_path / "artifacts")


@pytest.fixture
def registry(database, artifacts):
    """An open, empty registry, once on SQLite and once on PostgreSQL."""
    with open_registry(database, artifacts) as opened:
        yield opened
