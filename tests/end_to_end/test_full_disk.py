"""An intake onto a full disk, as its user meets it: one line, nothing half there, and room makes it whole."""

import json
import os
import subprocess

import pytest

SUBJECTS = tuple(f"s{number}" for number in range(120))


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


def test_a_full_artifact_disk_is_one_line_and_a_later_run_with_room_completes(
    continual, small_disk, small_stream, tmp_path
):
    rows = small_stream.write_cells(tmp_path, "first", SUBJECTS, 1)
    manifest = small_stream.write_manifest(tmp_path / "manifest.csv", rows)
    place = ("--workspace", tmp_path / "workspace")
    on_disk = {"CONTINUAL_ARTIFACTS_URL": str(small_disk)}

    refused = continual("ingest", "--manifest", manifest, *place, **on_disk)
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert "Traceback" not in refused.stderr
    (said,) = refused.stderr.splitlines()
    assert said.startswith("continual: no room for an artifact of ")
    assert said.endswith("nothing partial was kept; free space on the artifact store, repeat the call")

    status = continual("status", *place, "--json", **on_disk)
    assert (status.returncode, json.loads(status.stdout)["sites"]) == (0, [])
    assert list((small_disk / ".incoming").iterdir()) == []

    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    completed = continual("ingest", "--manifest", manifest, *place, **on_disk)
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert f"first: {len(rows)} new, 0 already stored, 0 quarantined" in completed.stdout
    status = continual("status", *place, "--json", **on_disk)
    (site,) = json.loads(status.stdout)["sites"]
    assert (site["site"], site["samples"], site["labelled"]) == ("first", len(rows), len(rows))
