"""Settings: the only reader of the environment. Rooms receive plain values from here.

Every field can be set as `CONTINUAL_<NAME>`, for example `CONTINUAL_DATABASE_URL=postgresql+psycopg://...`.
`CONTINUAL_WORKSPACE` counts where no workspace is named: the verbs name one by `--workspace`.
"""

import base64
import binascii
import hashlib
import ipaddress
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from continual.domain.errors import SettingsError

KEY_BYTES = 32
DEFAULT_WORKSPACE = Path("continual-workspace")
SECRET_PREFIX = "whsec_"  # noqa: S105  what every secret begins with, and no secret
SECRET_BYTES = (24, 64)
"""Fewest and most bytes of a webhook's secret (Standard Webhooks)."""
MAKE_ONE = (
    'make one with: python -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


class Settings(BaseSettings):
    """Where things are kept and how they run. One machine needs none of these; a hospital group changes URLs."""

    model_config = SettingsConfigDict(env_prefix="CONTINUAL_", frozen=True, extra="ignore")

    workspace: Path = Field(
        default=DEFAULT_WORKSPACE, description="Folder of one project: database, artifacts, caches, keys."
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; empty means SQLite inside the workspace.")
    artifacts_url: str = Field(
        default="", description="fsspec URL of the artifact store; empty means inside the workspace."
    )
    api_token: str | None = Field(
        default=None, description="Bearer token that HTTP writes need; unset refuses all writes."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    checkpoint_seconds: float = Field(
        default=15.0, ge=0, description="An update's training state is kept this often; 0 after every step."
    )
    threads: int = Field(default=0, ge=0, description="Torch threads; 0 leaves one per core.")
    activations_gib: float = Field(
        default=20.0, ge=0, description="Most GiB that the cache of activations takes; 0 sets no bound."
    )
    upload_mib: int = Field(
        default=32, ge=1, le=2048, description="Largest upload for a prediction, in MiB; large volumes need more."
    )
    actor: str = Field(default="continual", description="Name written beside every change in the ledger.")
    webhook_url: SecretStr = Field(
        default=SecretStr(""),
        description="Where drift reports are posted: https URLs, comma-separated; empty: none.",
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="whsec_ and base64 of 24 to 64 bytes; two, separated by a space, while one replaces the other.",
    )
    webhook_plain_http: bool = Field(default=False, description="Allow http:// to other machines; readable on the way.")
    webhook_timeout_s: float = Field(default=10.0, ge=0.1, le=60, description="Longest wait for a receiver, seconds.")

    def resolved_database_url(self) -> str:
        """The database's URL with the workspace's default filled in."""
        return self.database_url or f"sqlite:///{self.workspace.absolute() / 'registry.db'}"

    def resolved_artifacts_url(self) -> str:
        """The artifact store's URL with the workspace's default filled in."""
        return self.artifacts_url or str(self.workspace.absolute() / "artifacts")

    def activations_folder(self) -> Path:
        """Where cached activations lie; safe to delete, they are computed again."""
        return self.workspace.absolute() / "activations"

    def training_folder(self) -> Path:
        """Where states of unfinished updates lie; safe to delete, those updates then start anew."""
        return self.workspace.absolute() / "training"

    def activations_limit_bytes(self) -> int:
        """Most bytes of cached activations; 0 sets no bound."""
        return int(self.activations_gib * 2**30)

    def webhooks(self) -> "tuple[Webhook, ...]":
        """Where drift reports are posted, in the order named; none is named by default.

        Raises SettingsError on a URL that cannot be used, and on URLs without a secret to sign with.
        """
        listed = [url.strip() for url in self.webhook_url.get_secret_value().split(",")]
        urls = dict.fromkeys(url for url in listed if url)
        keys = tuple(_webhook_key(text) for text in self.webhook_secret.get_secret_value().split())
        if urls and not keys:
            raise SettingsError(
                "CONTINUAL_WEBHOOK_URL is set and CONTINUAL_WEBHOOK_SECRET is not, so receivers could not tell who "
                f"sends; {MAKE_ONE}"
            )
        return tuple(_webhook(url, keys, plain_http=self.webhook_plain_http) for url in urls)

    def kept_activations_folder(self) -> Path:
        """Where the activations of images lie that are stored no more: the only copy, and patient data; back it up."""
        return self.workspace.absolute() / "kept_activations"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One address that drift reports are posted to, and the keys they are signed with, the newest first."""

    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    name: str
    """What is stored and shown of it: scheme, host and 8 digits of the URL's digest. Many paths are passwords."""
    loopback: bool


def load_settings(workspace: Path | None = None, device: str | None = None) -> Settings:
    """Settings from the environment, with the command line's values on top.

    Raises SettingsError when a variable is out of range.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"CONTINUAL_{str(first['loc'][0]).upper()}"
        raise SettingsError(f"{name} is {first['input']!r}: {first['msg']}; correct the environment") from error
    settings.webhooks()  # a wrong address is heard of now, not when the first alarm is lost
    given = {"workspace": workspace, "device": device}
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


def create_workspace(settings: Settings) -> None:
    """Make the workspace folder and its pseudonym key where they are missing.

    Raises SettingsError when they cannot be made.
    """
    try:
        settings.workspace.mkdir(parents=True, exist_ok=True)
        key = _key_path(settings)
        if not key.exists():
            _make_key(key)
    except OSError as error:
        raise SettingsError(
            f"workspace {settings.workspace} cannot be made: {error.strerror}; choose another"
        ) from error


def pseudonym_key(settings: Settings) -> bytes:
    """The workspace's secret that pseudonyms are keyed with, 32 bytes; losing it makes returning patients new.

    Raises SettingsError when it is missing or cut short.
    """
    key = _key_path(settings)
    data = key.read_bytes() if key.exists() else b""
    if len(data) != KEY_BYTES:
        raise SettingsError(f"{key} holds {len(data)} bytes, needs {KEY_BYTES}; restore it from the backup")
    return data


def require_workspace(settings: Settings) -> None:
    """Raise SettingsError when there is nothing at the workspace yet."""
    if not settings.database_url and not (settings.workspace / "registry.db").exists():
        raise SettingsError(
            f"no workspace at {settings.workspace}; make one with `continual run` or `continual demo`, "
            "or pass the right --workspace"
        )


def prefect_environment(settings: Settings) -> dict[str, str]:
    """What Prefect is told unless the environment says otherwise: stay in the workspace, quiet, no telemetry."""
    wanted = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(settings.workspace.absolute() / "prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "DO_NOT_TRACK": "1",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def apply_environment(values: dict[str, str]) -> None:
    """Set variables that libraries read at import; call before importing them."""
    os.environ.update(values)


def _make_key(key: Path) -> None:
    # A link appears whole or not at all, and only once: of two that start together both read the same key. The draft
    # has a name of its own (two containers can share a process id), readable by its owner only.
    handle, draft = tempfile.mkstemp(dir=key.parent, prefix=f"{key.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        os.link(draft, key)
    except FileExistsError:
        return
    finally:
        Path(draft).unlink()


def _key_path(settings: Settings) -> Path:
    return settings.workspace / "pseudonym.key"


def _webhook(url: str, keys: tuple[bytes, ...], *, plain_http: bool) -> Webhook:
    """Checked; no complaint repeats the URL, since what stands in it may be a password."""
    parts = _url_parts(url)
    loopback = _is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not (loopback or plain_http):
        raise SettingsError(
            f"CONTINUAL_WEBHOOK_URL sends to {parts.hostname} by http, which anyone on the way can read; use https, or "
            "set CONTINUAL_WEBHOOK_PLAIN_HTTP=true"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    origin = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    return Webhook(url, keys, f"{origin}#{hashlib.sha256(url.encode()).hexdigest()[:8]}", loopback)


def _url_parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(sign.isspace() for sign in url):
        raise SettingsError(
            "CONTINUAL_WEBHOOK_URL holds an address that is none; write https://host/path, several with commas between"
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"CONTINUAL_WEBHOOK_URL holds a user name or password before {parts.hostname}; leave them out, receivers "
            "check the signature"
        )
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _webhook_key(text: str) -> bytes:
    fewest, most = SECRET_BYTES
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(SECRET_PREFIX) or not fewest <= len(key) <= most:
        raise SettingsError(
            f"CONTINUAL_WEBHOOK_SECRET is not {SECRET_PREFIX} and base64 of {fewest} to {most} bytes; {MAKE_ONE}"
        )
    return key
