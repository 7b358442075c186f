"""No room left: a typed error, nothing half there, and the same call works once there is room."""

import os
import subprocess
from pathlib import Path

import pytest

from continual.domain.errors import StorageFullError
from registry import open_registry
from registry.artifacts import INCOMING


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def _partial_files(folder):
    return list((Path(folder) / INCOMING).iterdir())


def test_full_artifact_disk_stores_nothing_of_the_intake_and_repeating_completes_it(database, small_disk, make):
    images = make.images(40, size_bytes=50_000)
    with open_registry(database, str(small_disk)) as registry:
        with pytest.raises(StorageFullError, match=r"50000 bytes.*free space"):
            registry.samples.record("north", images, [], "ingest")
        assert registry.samples.list() == []
        assert registry.ledger.verify() == 0
        assert _partial_files(small_disk) == []
        subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
        assert registry.samples.record("north", images, [], "ingest").new == 40
        assert all(len(registry.samples.read(sample)) == 50_000 for sample in registry.samples.list())


def test_full_artifact_disk_registers_no_version(database, small_disk, make):
    with open_registry(database, str(small_disk)) as registry:
        with pytest.raises(StorageFullError):
            registry.adapters.register(make.draft(), {"adapter_model.safetensors": bytes(2_000_000)}, "flow")
        assert registry.adapters.names() == ()
        assert _partial_files(small_disk) == []


def test_full_database_disk_keeps_what_was_acknowledged_and_nothing_of_the_rest(small_disk, artifacts, make):
    with open_registry(f"sqlite:///{small_disk}/registry.db", artifacts) as registry:
        registry.samples.record("north", make.images(3), [], "ingest")
        (small_disk / "filler").write_bytes(bytes(500_000))
        with pytest.raises(StorageFullError, match="database's device is full"):
            registry.samples.record("north", make.images(1200, size_bytes=10), [], "ingest")
        assert len(registry.samples.list()) == 3
        assert registry.ledger.verify() == 1
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert registry.samples.record("north", make.images(1200, size_bytes=10), [], "ingest").new == 1197
        assert registry.ledger.verify() == 2


def test_file_size_limit_is_reported_like_a_full_disk(tmp_path, artifacts, start_child, migrated_sqlite):
    child = start_child("record", f"sqlite:///{tmp_path}/registry.db", artifacts, 5_000_000, "small_files_only")
    assert child.communicate().strip() == "StorageFullError"
    assert _partial_files(artifacts) == []
