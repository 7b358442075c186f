"""The ledger: every change in order, and any tampering found."""

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from continual.domain.adapters import CHAMPION
from continual.domain.errors import LedgerError
from registry import ledger, open_registry
from registry.database import Database, make_engine

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdé", max_size=4), inner, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON, max_size=3), min_size=1, max_size=6)


def _append(database, payloads):
    with database.write() as session:
        for payload in payloads:
            ledger.append(session, ledger.moment(session), "tester", "event", payload)


@pytest.fixture
def chain(tmp_path, migrated_sqlite):
    """A ledger of five entries in a file of its own, and that file."""
    shutil.copy(migrated_sqlite, tmp_path / "registry.db")
    database = Database(make_engine(f"sqlite:///{tmp_path}/registry.db"))
    _append(database, [{"number": number} for number in range(1, 6)])
    yield ledger.Ledger(database), tmp_path / "registry.db"
    database.close()


def test_every_kind_of_change_is_recorded_in_order(registry, make):
    registry.samples.record("north", make.images(2), [], "ingest")
    begun = registry.updates.begin("lesion", "north", None, {}, "flow")
    registry.adapters.register(make.draft(), make.files(), "flow")
    registry.adapters.promote("lesion", 1, make.accepted, CHAMPION, "flow", "gate passed")
    registry.updates.finish(begun.id, 1, "accepted", {})
    entries = registry.ledger.list()
    assert [(entry.position, entry.event) for entry in entries] == [
        (1, "intake"),
        (2, "update_started"),
        (3, "version_registered"),
        (4, "gate_decision"),
        (5, "alias_moved"),
        (6, "update_finished"),
    ]
    assert [entry.actor for entry in entries] == ["ingest"] + ["flow"] * 5
    assert entries[0].payload["new"] == 2
    assert all(later.previous_digest == earlier.digest for earlier, later in zip(entries, entries[1:], strict=False))
    assert [entry.position for entry in registry.ledger.list(after=4, limit=1)] == [5]
    assert registry.ledger.verify() == 6


def test_empty_ledger_verifies(registry):
    assert registry.ledger.verify() == 0
    assert registry.ledger.list() == []


@given(PAYLOADS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_payload_verifies_after_it_was_read_back(chain, payloads):
    book, file = chain
    database = Database(make_engine(f"sqlite:///{file}"))
    before = book.verify()
    _append(database, payloads)
    assert book.verify() == before + len(payloads)
    assert [entry.payload for entry in book.list(after=before)] == payloads
    database.close()


@pytest.mark.parametrize("backend_payload", [{"text": "ü\u2028\U0001f600", "number": 1e-300, "deep": [{"a": None}]}])
def test_payload_keeps_its_digest_on_both_databases(registry, backend_payload):
    plan = {"plan": backend_payload}
    registry.updates.begin("lesion", "north", None, plan, "flow")
    assert registry.ledger.verify() == 1
    assert registry.ledger.list()[0].payload["plan"] == plan


TAMPERINGS = {
    "actor": "UPDATE ledger SET actor = 'mallory' WHERE position = {0}",
    "event": "UPDATE ledger SET event = 'other' WHERE position = {0}",
    "payload": "UPDATE ledger SET payload = '{{\"number\":99}}' WHERE position = {0}",
    "time": "UPDATE ledger SET recorded_at = '2020-01-01 00:00:00.000000' WHERE position = {0}",
    "digest": "UPDATE ledger SET digest = '" + "f" * 64 + "' WHERE position = {0}",
    "link": "UPDATE ledger SET previous_digest = '" + "f" * 64 + "' WHERE position = {0}",
    "removal": "DELETE FROM ledger WHERE position = {0}",
}


@pytest.mark.parametrize("kind", TAMPERINGS)
@given(position=st.integers(1, 5))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tampering_is_found_at_its_position(chain, kind, position):
    _, file = chain
    copy = Path(shutil.copy(file, file.with_name("tampered.db")))
    shutil.copy(f"{file}-wal", f"{copy}-wal")
    with sqlite3.connect(copy) as connection:
        connection.execute(TAMPERINGS[kind].format(position))
    connection.close()
    database = Database(make_engine(f"sqlite:///{copy}"))
    with pytest.raises(LedgerError, match=f"position {position} is broken"):
        ledger.Ledger(database).verify()
    database.close()


def test_entry_forged_with_a_matching_digest_breaks_the_next_link(chain):
    book, file = chain
    entry = book.list(after=1, limit=1)[0]
    forged = dataclasses.replace(entry, actor="mallory")
    connection = sqlite3.connect(file)
    connection.execute("UPDATE ledger SET actor = 'mallory', digest = ? WHERE position = 2", [ledger._digest(forged)])
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match=r"position 3 is broken: it does not continue"):
        book.verify()


def test_losing_the_count_of_entries_is_noticed(chain):
    book, file = chain
    connection = sqlite3.connect(file)
    connection.execute("DELETE FROM counters WHERE name = 'ledger_length'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError):
        book.verify()


def test_refused_change_leaves_no_entry(registry, make):
    registry.adapters.register(make.draft(), make.files(), "flow")
    with pytest.raises(Exception, match="no version 7"):
        registry.adapters.promote("lesion", 7, make.accepted, CHAMPION, "flow", "gate passed")
    assert registry.ledger.verify() == 1


def test_three_writers_at_once_make_one_chain(database, artifacts, start_child):
    children = [start_child("updates", database, artifacts, 15) for _ in range(3)]
    assert [child.communicate().strip() for child in children] == ["done"] * 3
    with open_registry(database, artifacts) as registry:
        verified = registry.ledger.verify()
        updates = registry.updates.list()
    assert len(updates) == 45
    assert sorted(update.id for update in updates) == list(range(1, 46))
    # An attempt whose rival began the same site may be interrupted first, and then has one entry more.
    assert verified >= 90


def test_postgresql_stores_the_payload_as_it_was_hashed(registry):
    registry.updates.begin("lesion", "north", None, {"big": 2**60, "small": 0.1}, "flow")
    with registry._database.read() as session:
        stored = str(session.scalar(text("SELECT CAST(payload AS TEXT) FROM ledger")))
    assert '"big":1152921504606846976,"small":0.1' in stored
