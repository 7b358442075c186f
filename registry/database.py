"""One engine on SQLite or PostgreSQL: its pragmas, its read and write transactions, its errors by our names.

Knows nothing of what the tables mean. Writers take turns: a write transaction holds the database's one write lock from
its first statement (SQLite BEGIN IMMEDIATE, PostgreSQL advisory lock), so numbers handed out inside it have no gaps.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, final

from sqlalchemy import Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

from continual.domain.digests import canonical_json
from continual.domain.errors import ContinualError, RegistryError, SchemaError, SettingsError, StorageFullError

LOCK_WAIT_S = 30
LOG_WAIT_S = 1
KEYS_PER_QUERY = 1000
Key = TypeVar("Key", str, int)
WRITE_LOCK_KEY = 0x436F6E74696E75
"""Any constant will do, as long as every Continual process uses the same; this one spells a name."""


def make_engine(database_url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql+psycopg://...`; SettingsError on any other URL.

    Statement parameters never appear in errors or logs, because they may hold labels and acquisition tags.
    """
    url = _checked_url(database_url)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, hide_parameters=True, json_serializer=canonical_json, pool_size=10, max_overflow=30)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url, hide_parameters=True, json_serializer=canonical_json, pool_size=10, max_overflow=30, pool_pre_ping=True
    )


@final
class Database:
    """Read and write transactions on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; whatever is changed in it is dropped."""
        with named_errors(), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that holds the write lock, commits at the end and rolls everything back on any error.

        Raises RegistryError when another writer keeps the lock for half a minute.
        """
        with named_errors(), Session(self._writer) as session, session.begin():
            take_write_lock(session.connection())
            yield session

    def flush_log(self) -> None:
        """SQLite: bring the write-ahead log into the database file and empty it, so that no deleted row is left in it.

        Left for the next time where a reader is in the way for longer than a second, or no file can be written.
        """
        if self.engine.dialect.name != "sqlite":
            return
        pooled = self.engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        with suppress(self.engine.dialect.loaded_dbapi.Error), closing(connection):
            connection.execute(f"PRAGMA busy_timeout={LOG_WAIT_S * 1000}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Give every pooled connection back."""
        self.engine.dispose()


@final
class PinnedNumber:
    """One number, read by one prepared statement on one connection of its own; safe to call from many threads."""

    def __init__(self, engine: Engine, statement: str) -> None:
        self._engine = engine
        self._statement = statement
        self._on_sqlite = engine.dialect.name == "sqlite"
        self._lock = threading.Lock()
        self._connection: Any = None

    def read(self) -> int:
        """The number as last committed by any process; RegistryError when the database cannot be asked."""
        failure = self._engine.dialect.loaded_dbapi.Error
        with self._lock, named_errors():
            try:
                return self._ask()
            except failure:
                # A database restart closes the connection under us: one new connection, then the error is real.
                self._drop()
            try:
                return self._ask()
            except failure as error:
                # The driver's own, as SQLAlchemy was passed by: what it would have made of it has a name of ours.
                raise DBAPIError.instance(self._statement, None, error, failure, hide_parameters=True) from error

    def close(self) -> None:
        """Close the connection; a later read opens a new one."""
        with self._lock:
            self._drop()

    def _ask(self) -> int:
        if self._connection is None:
            self._connection = self._open()
        rows = (
            self._connection.execute(self._statement)
            if self._on_sqlite
            else self._connection.execute(self._statement, prepare=True)
        ).fetchall()  # to the end: a half-read statement would hold SQLite's old snapshot for ever
        return int(rows[0][0])

    def _open(self) -> Any:
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        if not self._on_sqlite:
            connection.rollback()
            connection.autocommit = True
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def next_number(session: Session, column: InstrumentedAttribute[int]) -> int:
    """One more than the largest number stored, from 1; the caller's write lock keeps it free."""
    return (session.scalar(select(func.max(column))) or 0) + 1


def chunks(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """The keys in pieces that one statement takes as parameters."""
    for start in range(0, len(keys), KEYS_PER_QUERY):
        yield keys[start : start + KEYS_PER_QUERY]


def take_write_lock(connection: Connection) -> None:
    """Wait for the one write lock of the database; it is given back at the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK_KEY})


@contextmanager
def named_errors() -> Iterator[None]:
    """Database failures a person can do something about, under the names of the error tree."""
    try:
        yield
    except ContinualError:
        raise
    except DBAPIError as error:
        named = _named(error)
        if named is None:
            raise
        raise named from error


def _named(error: DBAPIError) -> ContinualError | None:
    code = str(getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or "")
    if code in ("SQLITE_FULL", "53100"):
        return StorageFullError("the database's device is full and nothing of this change was kept; free space, repeat")
    if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return SchemaError(f"the database file is not a usable SQLite database ({code}); restore it from a backup")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or code == "55P03":
        return RegistryError(f"another writer held the database for over {LOCK_WAIT_S} s; repeat the call")
    if isinstance(error, OperationalError):
        return RegistryError(
            f"the database cannot be used ({code or 'no connection'}); check its URL, rights and state"
        )
    return None


def _checked_url(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise SettingsError("the database URL cannot be read; use sqlite:///path or postgresql+psycopg://...") from None
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise SettingsError(f"database kind {backend!r} is not supported; use sqlite or postgresql+psycopg")
    if url.database in (None, "", ":memory:"):
        raise SettingsError("an SQLite database in memory keeps nothing; use sqlite:///path")
    return url.set(drivername="sqlite")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction handling begins too late for BEGIN IMMEDIATE: switch it off, begin by event.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={LOCK_WAIT_S * 1000}")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    # An erased subject's rows are overwritten, not only unlinked from the file.
    connection.execute("PRAGMA secure_delete=ON")


def _switch_to_wal(connection: Any) -> None:
    # Two processes that open a new file at once: SQLite reports busy here without waiting for the busy timeout.
    import sqlite3

    give_up = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
