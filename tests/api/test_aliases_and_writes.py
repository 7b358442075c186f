"""Moving aliases over HTTP: who may, what the gate says, and what was champion at a time."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from api import ServiceOptions


def test_listings_show_adapters_versions_and_aliases(door, bench):
    bench.champion("wbc")
    bench.rejected("wbc", parent=1)
    assert door.http.get("/v1/adapters").json()[0]["aliases"]["champion"] == 1
    assert door.http.get("/v1/adapters/wbc").json()["versions"] == 2
    assert [each["state"] for each in door.http.get("/v1/adapters/wbc/versions").json()] == ["accepted", "rejected"]
    assert door.http.get("/v1/adapters/wbc/versions/2").json()["gate"]["findings"][0]["passed"] is False
    assert door.http.get("/v1/adapters/wbc/aliases").json()["champion"] == 1
    for missing in ("/v1/adapters/x", "/v1/adapters/x/versions", "/v1/adapters/wbc/versions/9", "/v1/nothing"):
        answer = door.http.get(missing)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_rejected_version_answers_409_with_the_gates_findings_and_moves_nothing(door, bench, authorised):
    bench.champion("wbc")
    bench.rejected("wbc", parent=1)
    answer = door.http.put(
        "/v1/adapters/wbc/aliases/champion", json={"version": 2, "reason": "I like it"}, headers=authorised
    )
    assert answer.status_code == 409
    assert answer.json()["findings"][0]["site"] == "north"
    assert answer.json()["findings"][0]["passed"] is False
    assert door.http.get("/v1/adapters/wbc/current").json()["number"] == 1


def test_move_and_rollback_record_who_and_why(door, bench, authorised):
    bench.champion("wbc")
    bench.champion("wbc", parent=1, trained_on=("north", "south"))
    back = door.http.post("/v1/adapters/wbc/rollback", json={"reason": "south complains"}, headers=authorised)
    assert back.status_code == 200
    assert (back.json()["from_version"], back.json()["to_version"], back.json()["actor"]) == (2, 1, "dr-grid")
    forth = door.http.put(
        "/v1/adapters/wbc/aliases/champion", json={"version": 2, "reason": "fixed"}, headers=authorised
    )
    assert forth.json()["to_version"] == 2
    history = door.http.get("/v1/adapters/wbc/aliases/champion/history").json()
    assert sorted((move["to_version"], move["reason"]) for move in history) == [
        (1, "south complains"),
        (1, "the gate passed"),
        (2, "fixed"),
        (2, "the gate passed"),
    ]
    assert door.http.get("/v1/ledger/verify").json()["verified"] is True
    events = door.http.get("/v1/ledger").json()
    assert [entry["position"] for entry in events] == list(range(1, len(events) + 1))
    assert events[-1]["actor"] == "dr-grid"
    assert len(door.http.get("/v1/ledger", params={"after": 2, "limit": 1}).json()) == 1


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic letmein-1234", "Bearer", "letmein-1234"])
def test_a_write_without_the_right_token_is_401_and_changes_nothing(door, bench, given):
    bench.champion("wbc")
    bench.champion("wbc", parent=1, trained_on=("north", "south"))
    headers = {"authorization": given} if given else {}
    answer = door.http.post("/v1/adapters/wbc/rollback", json={"reason": "no"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    put = door.http.put("/v1/adapters/wbc/aliases/champion", json={"version": 1, "reason": "no"}, headers=headers)
    assert put.status_code == 401
    assert door.http.get("/v1/adapters/wbc/current").json()["number"] == 2


def test_a_service_without_a_token_refuses_every_write_with_the_remedy(opened, bench):
    door = opened(ServiceOptions(predictor_loader=lambda _: None))
    bench.champion("wbc")
    answer = door.http.post(
        "/v1/adapters/wbc/rollback", json={"reason": "no"}, headers={"authorization": "Bearer None"}
    )
    assert answer.status_code == 403
    assert "CONTINUAL_API_TOKEN" in answer.json()["detail"]


def test_an_overlong_actor_or_an_empty_reason_is_422(door, bench, authorised):
    bench.champion("wbc")
    long = door.http.post(
        "/v1/adapters/wbc/rollback", json={"reason": "x"}, headers={**authorised, "x-actor": "a" * 81}
    )
    assert long.status_code == 422
    assert door.http.post("/v1/adapters/wbc/rollback", json={"reason": ""}, headers=authorised).status_code == 422


def test_alias_at_a_time_answers_for_that_time(door, bench):
    before = datetime.now(UTC)
    time.sleep(0.02)
    bench.champion("wbc")
    between = datetime.now(UTC)
    time.sleep(0.02)
    bench.champion("wbc", parent=1, trained_on=("north", "south"))
    address = "/v1/adapters/wbc/aliases/champion"
    assert door.http.get(address).json()["version"]["number"] == 2
    assert door.http.get(address, params={"at": between.isoformat()}).json()["version"]["number"] == 1
    without_zone = between.replace(tzinfo=None).isoformat()
    assert door.http.get(address, params={"at": without_zone}).json()["version"]["number"] == 1
    assert door.http.get(address, params={"at": before.isoformat()}).status_code == 404
    assert door.http.get(address, params={"at": "yesterday"}).status_code == 422


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59-14:00"])
def test_an_alias_at_a_time_that_utc_does_not_have_is_refused(door, bench, at):
    bench.champion("wbc")
    answer = door.http.get("/v1/adapters/wbc/aliases/champion", params={"at": at})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"].startswith("at is ")
    assert "must be of the years 1 to 9999 in UTC" in answer.json()["detail"]


def test_an_alias_at_a_time_with_an_offset_is_that_of_the_same_moment_in_utc(door, bench):
    bench.champion("wbc")
    now = datetime.now(UTC)
    abroad = now.astimezone(timezone(timedelta(hours=14))).isoformat()
    answer = door.http.get("/v1/adapters/wbc/aliases/champion", params={"at": abroad}).json()
    assert answer["version"]["number"] == 1
    assert datetime.fromisoformat(answer["at"]) == now
