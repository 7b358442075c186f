"""Opening, migrating and refusing databases."""

import dataclasses
import shutil
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.exc import DatabaseError

from continual.domain.drift import Action, DriftReport, Verdict
from continual.domain.errors import NotFoundError, RegistryError, SchemaError, SettingsError
from registry import open_registry, schema
from registry.database import make_engine
from registry.tables import Base, DriftReportRow

NEXT_REVISION = f'''
"""One more revision, for the test of an upgrade."""
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{schema.HEAD}"


def upgrade():
    op.add_column("batches", sa.Column("note", sa.Text(), nullable=True))
'''


def test_empty_database_is_migrated_and_a_second_opening_finds_what_was_stored(empty_database, artifacts, make):
    with open_registry(empty_database, artifacts) as registry:
        registry.samples.record("north", make.images(2), [], "ingest")
    with open_registry(empty_database, artifacts) as registry:
        assert len(registry.samples.list()) == 2


def test_migrated_schema_and_typed_mappings_do_not_differ(database):
    engine = make_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_comparison_of_schemas_sees_a_missing_column(own_database):
    engine = make_engine(own_database)
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE batches DROP COLUMN relabelled"))
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) != []
    engine.dispose()


def test_head_is_the_newest_shipped_revision():
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == schema.HEAD


def test_three_processes_open_one_empty_database_at_once(empty_database, artifacts, start_child):
    children = [start_child("open", empty_database, artifacts) for _ in range(3)]
    assert [child.communicate().strip() for child in children] == ["opened"] * 3


def test_older_database_is_upgraded_and_keeps_its_rows(own_database, artifacts, make, tmp_path, monkeypatch):
    with open_registry(own_database, artifacts) as registry:
        registry.samples.record("north", make.images(3), [], "ingest")
    newer = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, newer)
    (newer / "versions" / "r9000_note.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    monkeypatch.setattr(schema, "HEAD", "9000")
    with open_registry(own_database, artifacts) as registry:
        assert len(registry.samples.list()) == 3
    engine = create_engine(own_database)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9000"
        assert connection.execute(text("SELECT note FROM batches")).scalars().all() == [None]
    engine.dispose()


def test_database_from_before_masks_is_upgraded_and_then_takes_masks(own_database, artifacts, make):
    from alembic import command

    with open_registry(own_database, artifacts) as registry:
        registry.samples.record("north", make.images(2), [], "ingest")
    engine = make_engine(own_database)
    with engine.begin() as connection:
        command.downgrade(schema._config(connection), "0001")
    for column in ("mask", "spacing_mm"):
        with engine.connect() as connection, pytest.raises(DatabaseError, match=column):
            connection.execute(text(f"SELECT {column} FROM samples"))
    engine.dispose()
    with open_registry(own_database, artifacts) as registry:
        assert [(sample.mask, sample.is_volume) for sample in registry.samples.list()] == [(None, False)] * 2
        masked = [dataclasses.replace(image, mask_data=b"a mask") for image in make.images(2)]
        assert registry.samples.record("north", masked, [], "masks").relabelled == 2
        assert [registry.samples.read_mask(sample) for sample in registry.samples.list()] == [b"a mask"] * 2


def test_reports_of_an_earlier_release_are_found_by_the_adapter_that_they_name(own_database, artifacts):
    from alembic import command

    report = DriftReport("north", "north", Verdict.NO_DRIFT, Action.NONE, "Nothing.", 0.05, 9, 9, 9, 9, 0, ())
    with open_registry(own_database, artifacts) as registry:
        for adapter in ("cells", "vessels", ""):
            registry.drift.add(dataclasses.replace(report, adapter=adapter), "monitor")
    engine = make_engine(own_database)
    with engine.begin() as connection:
        command.downgrade(schema._config(connection), "0004")
        # Before there were several adapters a report did not say whose it was.
        third = DriftReportRow.id == 3
        body = connection.execute(select(DriftReportRow.body).where(third)).scalar_one()
        del body["adapter"]
        connection.execute(update(DriftReportRow).where(third).values(body=body))
    engine.dispose()
    with open_registry(own_database, artifacts) as registry:
        found = registry.drift.latest_of_each()
        assert {key: report.id for key, report in found.items()} == {
            ("north", "cells"): 1,
            ("north", "vessels"): 2,
            ("north", ""): 3,
        }
        assert [report.id for report in registry.drift.list(adapter="vessels")] == [2]


def test_newer_database_is_refused_naming_both_revisions(own_database, artifacts):
    engine = create_engine(own_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    engine.dispose()
    with pytest.raises(SchemaError, match=rf"'0999'.*'{schema.HEAD}'.*install the release"):
        open_registry(own_database, artifacts)


def test_database_of_another_program_is_refused_and_left_alone(empty_database, artifacts):
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE patients (name TEXT)"))
    engine.dispose()
    with pytest.raises(SchemaError, match="'patients'"):
        open_registry(empty_database, artifacts)
    with engine.connect() as connection, pytest.raises(Exception, match="alembic_version"):
        connection.execute(text("SELECT * FROM alembic_version"))
    engine.dispose()


def test_file_that_is_no_database_is_refused(tmp_path, artifacts):
    (tmp_path / "registry.db").write_bytes(b"not a database " * 500)
    with pytest.raises(SchemaError, match="restore it from a backup"):
        open_registry(f"sqlite:///{tmp_path}/registry.db", artifacts)


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_unusable_database_url_is_a_settings_error(url, artifacts):
    with pytest.raises(SettingsError, match="sqlite"):
        open_registry(url, artifacts)


def test_unknown_artifacts_url_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match="fsspec"):
        open_registry(f"sqlite:///{tmp_path}/registry.db", "nosuchstore://bucket")


def test_unreachable_server_is_named_without_its_password(artifacts):
    with pytest.raises(RegistryError) as caught:
        open_registry("postgresql+psycopg://user:hunter2@127.0.0.1:1/registry", artifacts)
    assert "hunter2" not in str(caught.value)
    assert "check its URL" in str(caught.value)


def test_sqlite_runs_in_write_ahead_mode_with_foreign_keys(tmp_path, artifacts):
    url = f"sqlite:///{tmp_path}/deep/er/registry.db"
    open_registry(url, artifacts).close()
    engine = make_engine(url)
    with engine.connect() as connection:
        modes = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    engine.dispose()
    assert modes == ["wal", 1, 1, 30000]


def test_postgresql_url_without_a_driver_is_understood(postgres, artifacts):
    url = postgres.create("migrated").replace("+psycopg", "")
    with open_registry(url, artifacts) as registry, pytest.raises(NotFoundError):
        registry.adapters.current("lesion")


def test_lock_held_too_long_is_a_registry_error_that_says_so(tmp_path, artifacts, monkeypatch):
    monkeypatch.setattr("registry.database.LOCK_WAIT_S", 0.2)
    url = f"sqlite:///{tmp_path}/registry.db"
    with open_registry(url, artifacts) as registry:
        holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match="another writer"):
            registry.updates.begin("lesion", "north", None, {}, "flow")
        holder.close()


def test_importing_the_room_loads_no_database_library():
    program = "import sys, registry; print(sorted({'sqlalchemy', 'alembic', 'fsspec', 'numpy'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
