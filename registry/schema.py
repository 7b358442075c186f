"""Brings a database to this release's schema by alembic, or refuses it; knows nothing of what is stored.

Safe when several processes open one new database at once: the first migrates under the write lock, the rest wait.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from continual.domain.errors import SchemaError
from registry.database import named_errors, take_write_lock

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0006"
MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"
# Alembic keeps its running migration in module globals: one at a time in a process.
_migrating = threading.Lock()


def bring_to_head(engine: Engine) -> None:
    """Migrate an empty or older database to this release's revision; leave a current one alone.

    Raises SchemaError when the database is newer than this release, or not Continual's.
    """
    with named_errors():
        with engine.connect() as connection:
            if _revision(connection) == HEAD:
                return
        with _migrating, engine.execution_options(writes=True).begin() as connection:
            take_write_lock(connection)
            revision = _revision(connection)
            if revision != HEAD:
                _upgrade(connection, revision)


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is None:
        _refuse_foreign(connection)
    elif revision not in known:
        raise SchemaError(
            f"the database has schema revision {revision!r}, this release knows up to {HEAD!r}; "
            "install the release that wrote it, or use a database of Continual's own"
        )
    command.upgrade(config, "head")


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608  a constant
    return None if revision is None else str(revision)


def _refuse_foreign(connection: Connection) -> None:
    strangers = sorted(set(inspect(connection).get_table_names()) - {_VERSION_TABLE})
    if strangers:
        raise SchemaError(
            f"the database holds {len(strangers)} tables that are not Continual's (the first: {strangers[0]!r}); "
            "use a database of Continual's own"
        )
