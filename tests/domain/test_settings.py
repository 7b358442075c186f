"""Settings from the environment, webhooks among them, and a workspace's key, also when many start at once."""

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


SECRET = "whsec_" + "QUJD" * 10


def webhooks_of(monkeypatch, url, secret=SECRET, **more):
    monkeypatch.setenv("CONTINUAL_WEBHOOK_URL", url)
    for name, value in {"secret": secret, **more}.items():
        monkeypatch.setenv(f"CONTINUAL_WEBHOOK_{name.upper()}", value)
    return load_settings().webhooks()


def test_no_webhook_is_named_unless_asked_for(monkeypatch):
    assert load_settings().webhooks() == ()
    monkeypatch.setenv("CONTINUAL_WEBHOOK_SECRET", SECRET)
    assert load_settings().webhooks() == ()


def test_webhooks_keep_their_order_once_each_and_show_no_path(monkeypatch):
    listed = "https://desk.example/a?key=1, https://pager.example:8443/b,https://desk.example/a?key=1,"
    desk, pager = webhooks_of(monkeypatch, listed)
    assert (desk.url, pager.url) == ("https://desk.example/a?key=1", "https://pager.example:8443/b")
    assert desk.name.startswith("https://desk.example#")
    assert pager.name.startswith("https://pager.example:8443#")
    assert desk.keys == (b"ABC" * 10,)
    assert "key=1" not in repr((desk, load_settings()))
    assert "QUJD" not in repr((desk, load_settings()))


def test_two_addresses_of_one_host_have_two_names(monkeypatch):
    one, other = webhooks_of(monkeypatch, "https://desk.example/a,https://desk.example/b")
    assert one.name != other.name


def test_while_a_secret_is_replaced_there_are_two_keys(monkeypatch):
    (webhook,) = webhooks_of(monkeypatch, "https://desk.example", f"{SECRET} whsec_{'REVG' * 10}")
    assert webhook.keys == (b"ABC" * 10, b"DEF" * 10)


def test_a_webhook_without_a_secret_is_refused_with_the_way_to_one(monkeypatch):
    with pytest.raises(SettingsError, match=r"CONTINUAL_WEBHOOK_SECRET is not.*make one with: python -c"):
        webhooks_of(monkeypatch, "https://desk.example", "")


@pytest.mark.parametrize(
    "secret", ["hunter2hunter2", "whsec_hunter2", "whsec_" + "QUJD" * 7, "whsec_" + "QUJD" * 22, "QUJD" * 10]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(monkeypatch, secret):
    with pytest.raises(SettingsError, match="CONTINUAL_WEBHOOK_SECRET is not whsec_ and base64") as refused:
        webhooks_of(monkeypatch, "https://desk.example", secret)
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "desk.example/hidden",
        "ftp://desk.example/hidden",
        "https:///hidden",
        "https://desk.example:port/hidden",
        "https://desk.example:0/hidden",
        "https://desk.example/a hidden",
        "https://[desk/hidden",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(monkeypatch, url):
    with pytest.raises(SettingsError, match="an address that is none; write https://host/path") as refused:
        webhooks_of(monkeypatch, url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://user:hidden@desk.example/a", "https://hidden@desk.example/a"])
def test_a_user_name_or_password_in_an_address_is_refused_and_not_repeated(monkeypatch, url):
    with pytest.raises(SettingsError, match="user name or password before desk.example; leave them out") as refused:
        webhooks_of(monkeypatch, url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "[::1]:9000", "127.8.8.8"])
def test_plain_http_stays_on_this_machine(monkeypatch, host):
    (webhook,) = webhooks_of(monkeypatch, f"http://{host}/a")
    assert webhook.loopback


@pytest.mark.parametrize("host", ["desk.example", "10.0.0.7", "localhost.example", "127.0.0.1.example"])
def test_plain_http_to_another_machine_needs_to_be_allowed(monkeypatch, host):
    with pytest.raises(SettingsError, match="use https, or set CONTINUAL_WEBHOOK_PLAIN_HTTP=true"):
        webhooks_of(monkeypatch, f"http://{host}/a")
    (webhook,) = webhooks_of(monkeypatch, f"http://{host}/a", plain_http="true")
    assert not webhook.loopback
