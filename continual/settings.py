"""Settings: the only reader of the environment. Rooms receive plain values from here.

Every field can be set as `CONTINUAL_<NAME>`, for example `CONTINUAL_DATABASE_URL=postgresql+psycopg://...`.
"""

import os
import secrets
import tempfile
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from continual.domain.errors import SettingsError

KEY_BYTES = 32
DEFAULT_WORKSPACE = Path("continual-workspace")


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

    def kept_activations_folder(self) -> Path:
        """Where the activations of images lie that are stored no more: the only copy, and patient data; back it up."""
        return self.workspace.absolute() / "kept_activations"


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
