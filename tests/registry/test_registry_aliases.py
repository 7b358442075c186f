"""Aliases on both databases: accepted versions only, a history that is only added to, and rollback."""

import shutil
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.domain.adapters import CHAMPION, AdapterState, GateDecision, GateFinding
from continual.domain.errors import ConflictError, NotAcceptedError, NotFoundError, RegistryError
from registry import open_registry

GOOD = GateFinding("south", "new", 0.5, 0.6, 0.1, 0.05, 0.0, True, 12, "south gained 0.100")
BAD = GateFinding("north", "past", 0.81, 0.5, -0.31, -0.4, -0.05, False, 12, "north lost 0.310 over 12 subjects")
REJECTED = GateDecision(accepted=False, findings=(GOOD, BAD), margin=-0.05, confidence=0.9)


@pytest.fixture
def adapters(registry, make):
    """A store with accepted versions 1 to 4 (each the parent of the next) and no alias."""
    for number in (1, 2, 3, 4):
        parent = number - 1 or None
        registry.adapters.register(make.draft(parent), make.files(f"weights {number}"), "flow")
        registry.adapters.decide("lesion", number, make.accepted, "gate")
    return registry.adapters


def _move(adapters, number):
    return adapters.move_alias("lesion", CHAMPION, number, "engineer", f"try {number}")


def test_alias_points_where_it_was_moved_last(adapters):
    for number in (1, 3, 2):
        move = _move(adapters, number)
    assert (move.from_version, move.to_version, move.actor, move.reason) == (3, 2, "engineer", "try 2")
    assert adapters.current("lesion").number == 2
    adapters.move_alias("lesion", "challenger", 4, "engineer", "shadow")
    assert adapters.aliases("lesion") == {"challenger": 4, "champion": 2}
    assert [(one.from_version, one.to_version) for one in adapters.history("lesion", CHAMPION)] == [
        (None, 1),
        (1, 3),
        (3, 2),
    ]


def test_moving_to_where_it_points_already_adds_nothing(adapters):
    first = _move(adapters, 2)
    assert adapters.move_alias("lesion", CHAMPION, 2, "someone else", "again") == first
    assert len(adapters.history("lesion", CHAMPION)) == 1


def test_rejected_candidate_never_moves_the_alias(registry, adapters, make):
    _move(adapters, 1)
    adapters.register(make.draft(1), make.files("weights 5"), "flow")
    with pytest.raises(NotAcceptedError, match="run the gate"):
        _move(adapters, 5)
    adapters.decide("lesion", 5, REJECTED, "gate")
    with pytest.raises(NotAcceptedError, match="north: north lost 0.310") as caught:
        _move(adapters, 5)
    assert "south" not in str(caught.value)
    assert adapters.current("lesion").number == 1
    assert adapters.promote("lesion", 5, REJECTED, CHAMPION, "flow", "gate").state is AdapterState.REJECTED
    assert adapters.current("lesion").number == 1


def test_alias_answers_for_a_time_in_the_past(adapters):
    moved = [_move(adapters, number).moved_at for number in (1, 2, 3)]
    for at, number in zip(moved, (1, 2, 3), strict=True):
        assert adapters.current("lesion", at=at).number == number
    assert adapters.current("lesion", at=moved[2] - timedelta(microseconds=1)).number == 2
    assert adapters.current("lesion", at=moved[0].astimezone(UTC).replace(tzinfo=None)).number == 1
    with pytest.raises(NotFoundError):
        adapters.current("lesion", at=moved[0] - timedelta(microseconds=1))


def test_times_of_moves_never_run_backwards_even_when_the_clock_does(adapters, monkeypatch):
    first = _move(adapters, 1).moved_at

    class StoppedClock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr("registry.ledger.datetime", StoppedClock)
    assert _move(adapters, 2).moved_at >= first
    assert adapters.current("lesion", at=datetime(2100, 1, 1, tzinfo=UTC)).number == 2


def test_rollbacks_go_further_back_each_time_until_nothing_came_before(adapters):
    for number in (1, 2, 3):
        _move(adapters, number)
    assert adapters.rollback("lesion", "quality", "complaint").to_version == 2
    assert adapters.rollback("lesion", "quality", "complaint").to_version == 1
    with pytest.raises(NotFoundError, match="no version before 1"):
        adapters.rollback("lesion", "quality", "complaint")
    assert adapters.current("lesion").number == 1
    assert len(adapters.history("lesion", CHAMPION)) == 5


def test_rollback_after_a_rollback_and_a_move_returns_to_where_it_stood(adapters):
    for number in (1, 2, 3):
        _move(adapters, number)
    adapters.rollback("lesion", "quality", "back to 2")
    _move(adapters, 4)
    assert adapters.rollback("lesion", "quality", "back to 2").to_version == 2
    assert adapters.rollback("lesion", "quality", "back to 1").to_version == 1


def test_move_back_by_hand_is_undone_by_rollback(adapters):
    for number in (1, 2, 1):
        _move(adapters, number)
    assert [adapters.rollback("lesion", "quality", "back").to_version for _ in range(2)] == [2, 1]


def test_alias_that_was_never_moved_is_not_found(adapters):
    for ask in (lambda: adapters.current("lesion"), lambda: adapters.rollback("lesion", "me", "why")):
        with pytest.raises(NotFoundError, match="points at no version"):
            ask()
    assert adapters.history("lesion", CHAMPION) == []
    assert adapters.aliases("unknown") == {}


def test_promotion_decides_and_moves_in_one_step(registry, make):
    adapters = registry.adapters
    adapters.register(make.draft(), make.files(), "flow")
    promoted = adapters.promote("lesion", 1, make.accepted, CHAMPION, "flow", "gate passed")
    assert promoted.state is AdapterState.ACCEPTED
    assert adapters.current("lesion") == promoted
    assert [entry.event for entry in registry.ledger.list()] == ["version_registered", "gate_decision", "alias_moved"]


def test_version_decided_earlier_can_still_be_promoted(adapters, make):
    assert adapters.promote("lesion", 1, make.accepted, CHAMPION, "flow", "gate passed").number == 1
    assert adapters.current("lesion").number == 1


def test_repeated_promotion_does_not_bring_back_what_was_replaced(adapters, make):
    for number in (1, 2):
        adapters.promote("lesion", number, make.accepted, CHAMPION, "flow", "gate passed")
    adapters.rollback("lesion", "quality", "complaint")
    adapters.promote("lesion", 2, make.accepted, CHAMPION, "flow", "gate passed")
    assert adapters.current("lesion").number == 1


def test_candidate_of_an_older_champion_is_not_promoted_over_the_new_one(registry, make):
    adapters = registry.adapters
    for text, parent in (("one", None), ("two", 1), ("three", 1)):
        adapters.register(make.draft(parent), make.files(text), "flow")
    for number in (1, 2):
        adapters.promote("lesion", number, make.accepted, CHAMPION, "flow", "gate passed")
    with pytest.raises(ConflictError, match=r"compared with version 1.*'champion' is version 2"):
        adapters.promote("lesion", 3, make.accepted, CHAMPION, "flow", "gate passed")
    assert adapters.get("lesion", 3).state is AdapterState.CANDIDATE
    assert adapters.current("lesion").number == 2


@pytest.mark.parametrize(("alias", "actor", "reason"), [("a/b", "me", "why"), ("a", "", "why"), ("a", "me", "")])
def test_move_without_a_plain_alias_an_actor_or_a_reason_is_refused(adapters, alias, actor, reason):
    with pytest.raises(RegistryError):
        adapters.move_alias("lesion", alias, 1, actor, reason)


def test_revision_grows_with_every_change_and_with_nothing_else(registry, make):
    adapters, seen = registry.adapters, [registry.adapters.alias_revision()]

    def note():
        seen.append(adapters.alias_revision())

    adapters.register(make.draft(), make.files(), "flow")
    note()
    adapters.decide("lesion", 1, make.accepted, "gate")
    note()
    _move(adapters, 1)
    note()
    assert seen == sorted(set(seen))
    _move(adapters, 1)
    adapters.decide("lesion", 1, make.accepted, "gate")
    adapters.register(make.draft(), make.files(), "flow")
    registry.samples.record("north", make.images(2), [], "ingest")
    assert adapters.alias_revision() == seen[-1]


def test_revision_is_seen_by_other_connections_and_read_two_thousand_times_a_second(database, artifacts, make):
    with open_registry(database, artifacts) as reader, open_registry(database, artifacts) as writer:
        before = reader.adapters.alias_revision()
        writer.adapters.register(make.draft(), make.files(), "flow")
        assert reader.adapters.alias_revision() > before
        begun = time.process_time()
        for _ in range(2000):
            reader.adapters.alias_revision()
        assert time.process_time() - begun < 1


def test_revision_survives_a_lost_connection(postgres, artifacts):
    with open_registry(postgres.emptied(), artifacts) as registry:
        before = registry.adapters.alias_revision()
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shared'")
        assert registry.adapters.alias_revision() == before
        assert registry.adapters.names() == ()


def test_revision_of_a_database_that_is_down_is_refused_as_every_reading_is_and_answers_once_it_is_back(
    postgres, artifacts
):
    url = postgres.create("migrated")
    name = url.rsplit("/", 1)[1]
    with open_registry(url, artifacts) as registry:
        before = registry.adapters.alias_revision()
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        for ask in (registry.adapters.names, registry.adapters.alias_revision, registry.adapters.alias_revision):
            with pytest.raises(RegistryError, match="the database cannot be used .* check its URL, rights and state"):
                ask()
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert registry.adapters.alias_revision() == before


def test_revision_can_be_asked_from_many_threads(registry):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.extend(registry.adapters.alias_revision() for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 400


@pytest.fixture(scope="module")
def many_adapters(tmp_path_factory, migrated_sqlite):
    folder = tmp_path_factory.mktemp("many")
    shutil.copy(migrated_sqlite, folder / "registry.db")
    with open_registry(f"sqlite:///{folder}/registry.db", str(folder / "artifacts")) as registry:
        yield registry.adapters


@given(st.lists(st.one_of(st.just("back"), st.integers(1, 3)), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_answers_as_a_stack_of_versions_would(many_adapters, make, steps):
    adapter, stack, moves = uuid.uuid4().hex, [], []
    for number in (1, 2, 3):
        many_adapters.register(make.draft(adapter=adapter), make.files(f"weights {number}"), "flow")
        many_adapters.decide(adapter, number, make.accepted, "gate")
    for step in steps:
        before = list(stack)
        if step != "back" and (not stack or stack[-1] != step):
            stack.append(step)
        if step == "back" and len(stack) > 1:
            stack.pop()
        if step == "back":
            try:
                many_adapters.rollback(adapter, "me", "back")
            except NotFoundError:
                assert len(before) < 2
        else:
            many_adapters.move_alias(adapter, CHAMPION, step, "me", "forth")
        if stack != before:
            moves.append(((before or [None])[-1], stack[-1]))
    history = many_adapters.history(adapter, CHAMPION)
    assert [(move.from_version, move.to_version) for move in history] == moves
    assert [move.moved_at for move in history] == sorted(move.moved_at for move in history)
    assert many_adapters.aliases(adapter) == ({CHAMPION: stack[-1]} if stack else {})
