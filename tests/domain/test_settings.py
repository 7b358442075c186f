"""Settings from the environment, and a workspace's key, also when many start at once."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from continual.domain.errors import SettingsError
from continual.settings import (
    KEY_BYTES,
    Settings,
    create_workspace,
    load_settings,
    prefect_environment,
    pseudonym_key,
    require_workspace,
)

ROOT = Path(__file__).parents[2]
STARTERS = 8


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("CONTINUAL_", "PREFECT_"))]:
        monkeypatch.delenv(name)


def test_one_machine_needs_no_setting(tmp_path):
    settings = load_settings(tmp_path)
    assert settings.resolved_database_url() == f"sqlite:///{tmp_path}/registry.db"
    assert settings.resolved_artifacts_url() == str(tmp_path / "artifacts")
    assert settings.activations_folder() == tmp_path / "activations"
    assert settings.kept_activations_folder() == tmp_path / "kept_activations"
    assert settings.activations_limit_bytes() == 20 * 2**30
    assert settings.api_token is None
    assert settings.upload_mib == 32
    assert settings.device == "auto"


def test_the_environment_overrides_defaults_and_the_command_line_overrides_both(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTINUAL_DATABASE_URL", "postgresql+psycopg://db/continual")
    monkeypatch.setenv("CONTINUAL_ARTIFACTS_URL", "s3://bucket/continual")
    monkeypatch.setenv("CONTINUAL_WORKSPACE", str(tmp_path / "outside"))
    monkeypatch.setenv("CONTINUAL_DEVICE", "cpu")
    monkeypatch.setenv("CONTINUAL_THREADS", "3")
    monkeypatch.setenv("CONTINUAL_ACTIVATIONS_GIB", "0.5")
    settings = load_settings()
    assert settings.activations_limit_bytes() == 2**29
    assert settings.resolved_database_url() == "postgresql+psycopg://db/continual"
    assert settings.resolved_artifacts_url() == "s3://bucket/continual"
    assert (settings.workspace, settings.device, settings.threads) == (tmp_path / "outside", "cpu", 3)
    given = load_settings(workspace=tmp_path / "given", device="cuda:1")
    assert (given.workspace, given.device, given.threads) == (tmp_path / "given", "cuda:1", 3)


@pytest.mark.parametrize("value", ["-1", "many"])
def test_a_variable_out_of_range_is_named_with_its_value(monkeypatch, value):
    monkeypatch.setenv("CONTINUAL_THREADS", value)
    with pytest.raises(SettingsError, match=f"CONTINUAL_THREADS is '{value}'"):
        load_settings()


def test_settings_cannot_be_changed_after_they_were_read():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().device = "cuda"


def test_a_workspaces_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    settings = Settings(workspace=tmp_path / "deep" / "workspace")
    create_workspace(settings)
    first = pseudonym_key(settings)
    create_workspace(settings)
    assert pseudonym_key(settings) == first
    assert len(first) == KEY_BYTES == 32
    assert (settings.workspace / "pseudonym.key").stat().st_mode & 0o077 == 0
    assert [path.name for path in settings.workspace.iterdir()] == ["pseudonym.key"]


def test_two_workspaces_have_two_keys(tmp_path):
    both = [Settings(workspace=tmp_path / name) for name in ("one", "two")]
    for settings in both:
        create_workspace(settings)
    assert pseudonym_key(both[0]) != pseudonym_key(both[1])


def test_threads_that_start_together_all_read_the_same_key(tmp_path):
    for round_number in range(40):
        settings = Settings(workspace=tmp_path / str(round_number))
        together = threading.Barrier(STARTERS)

        def start(settings=settings, together=together) -> bytes:
            together.wait(timeout=30)
            create_workspace(settings)
            return pseudonym_key(settings)

        with ThreadPoolExecutor(STARTERS) as pool:
            keys = {future.result() for future in [pool.submit(start) for _ in range(STARTERS)]}
        assert keys == {pseudonym_key(settings)}
        assert [path.name for path in settings.workspace.iterdir()] == ["pseudonym.key"]


def test_processes_that_start_together_all_read_the_same_key(tmp_path):
    script = (
        "import pathlib, sys, time\n"
        "from continual.settings import create_workspace, load_settings, pseudonym_key\n"
        "settings = load_settings(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "create_workspace(settings); print(pseudonym_key(settings).hex())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "workspace")]
    starters = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [starter.stdout.readline() for starter in starters] == ["ready\n"] * 2
    for starter in starters:
        starter.stdin.write("go\n")
        starter.stdin.flush()
    keys = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    assert keys == {pseudonym_key(Settings(workspace=tmp_path / "workspace")).hex()}


@pytest.mark.parametrize("kept", [None, 0, 31, 33])
def test_a_missing_or_cut_key_is_an_error_that_says_where_it_comes_back_from(tmp_path, kept):
    if kept is not None:
        (tmp_path / "pseudonym.key").write_bytes(bytes(kept))
    with pytest.raises(SettingsError, match=f"holds {kept or 0} bytes, needs 32; restore it"):
        pseudonym_key(Settings(workspace=tmp_path))


def test_a_cut_key_is_never_replaced_by_a_new_one(tmp_path):
    (tmp_path / "pseudonym.key").write_bytes(b"cut")
    create_workspace(Settings(workspace=tmp_path))
    assert (tmp_path / "pseudonym.key").read_bytes() == b"cut"


def test_a_workspace_that_cannot_be_made_is_a_settings_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for workspace in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="cannot be made"):
            create_workspace(Settings(workspace=workspace))


def test_a_missing_workspace_is_named_unless_the_database_is_elsewhere(tmp_path):
    with pytest.raises(SettingsError, match="no workspace at"):
        require_workspace(Settings(workspace=tmp_path))
    require_workspace(Settings(workspace=tmp_path, database_url="postgresql+psycopg://db/continual"))
    (tmp_path / "registry.db").touch()
    require_workspace(Settings(workspace=tmp_path))


def test_prefect_stays_in_the_workspace_without_telemetry_unless_told_otherwise(monkeypatch, tmp_path):
    told = prefect_environment(Settings(workspace=tmp_path))
    assert told["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert told["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert told["DO_NOT_TRACK"] == "1"
    monkeypatch.setenv("PREFECT_HOME", "elsewhere")
    assert prefect_environment(Settings(workspace=tmp_path))["PREFECT_HOME"] == "elsewhere"
