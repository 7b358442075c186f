"""The address other systems ask: the champion, its entity tag, the long poll, and that it is never stale."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from registry import open_registry


def test_current_names_number_digest_state_metrics_and_links(door, bench):
    version = bench.champion("wbc")
    answer = door.http.get("/v1/adapters/wbc/current")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["number"], body["digest"], body["state"]) == (version.number, version.digest, "accepted")
    assert body["metrics"] == dict(version.metrics)
    assert (body["metric"], body["strategy"]) == ("balanced_accuracy", "replay_ewc")
    assert body["classes"] == ["dark", "bright"]
    assert body["trained_on"] == ["north"]
    for path in (body["links"]["self"], body["links"]["record"], *(f["href"] for f in body["links"]["files"].values())):
        assert door.http.get(path).status_code == 200


def test_unknown_adapter_is_a_404_problem(door):
    answer = door.http.get("/v1/adapters/nothing/current")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


def test_known_entity_tag_answers_304_without_a_body_until_the_alias_moves(door, bench):
    first = bench.champion("wbc")
    tag = door.http.get("/v1/adapters/wbc/current").headers["etag"]
    unchanged = door.http.get("/v1/adapters/wbc/current", headers={"if-none-match": tag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    bench.champion("wbc", parent=first.number, trained_on=("north", "south"))
    changed = door.http.get("/v1/adapters/wbc/current", headers={"if-none-match": f'"other", {tag}'})
    assert changed.status_code == 200
    assert changed.json()["number"] == 2
    assert changed.headers["etag"] != tag


def test_a_move_made_by_another_process_is_seen_by_the_very_next_request(door, bench, tmp_path):
    other = open_registry(f"sqlite:///{tmp_path / 'registry.db'}", str(tmp_path / "artifacts"))
    first = bench.champion("wbc")
    second = bench.champion("wbc", parent=first.number, trained_on=("north", "south"))
    for number in (first.number, second.number) * 10:
        other.adapters.move_alias("wbc", "champion", number, "other", "to and fro")
        assert door.http.get("/v1/adapters/wbc/current").json()["number"] == number


def test_no_request_among_many_is_answered_from_before_a_finished_move(door, bench):
    first = bench.champion("wbc")
    second = bench.champion("wbc", parent=first.number, trained_on=("north", "south"))
    bench.registry.adapters.move_alias("wbc", "champion", first.number, "test", "back")
    moved = threading.Event()

    def ask(_: int) -> tuple[bool, int]:
        certain = moved.is_set()
        return certain, door.http.get("/v1/adapters/wbc/current").json()["number"]

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, index) for index in range(200)]
        bench.registry.adapters.move_alias("wbc", "champion", second.number, "test", "forth")
        moved.set()
        answers += [pool.submit(ask, index) for index in range(200)]
        seen = [answer.result() for answer in answers]
    assert {number for certain, number in seen if certain} == {second.number}
    assert sum(certain for certain, _ in seen) >= 200


def test_long_poll_answers_as_soon_as_the_alias_moves(door, bench):
    first = bench.champion("wbc")
    tag = door.http.get("/v1/adapters/wbc/current").headers["etag"]
    timer = threading.Timer(0.4, lambda: bench.champion("wbc", parent=first.number, trained_on=("north", "south")))
    timer.start()
    began = time.monotonic()
    answer = door.http.get("/v1/adapters/wbc/current", params={"wait": 15}, headers={"if-none-match": tag})
    timer.join()
    assert answer.status_code == 200
    assert answer.json()["number"] == 2
    assert 0.3 < time.monotonic() - began < 5


def test_long_poll_ends_with_304_when_nothing_moved(door, bench):
    bench.champion("wbc")
    tag = door.http.get("/v1/adapters/wbc/current").headers["etag"]
    began = time.monotonic()
    answer = door.http.get("/v1/adapters/wbc/current", params={"wait": 0.7}, headers={"if-none-match": tag})
    assert answer.status_code == 304
    assert time.monotonic() - began >= 0.7


def test_long_poll_without_a_known_tag_answers_at_once(door, bench):
    bench.champion("wbc")
    began = time.monotonic()
    assert door.http.get("/v1/adapters/wbc/current", params={"wait": 30}).status_code == 200
    assert time.monotonic() - began < 5


def test_wait_beyond_a_minute_is_refused_with_its_limit(door, bench):
    bench.champion("wbc")
    answer = door.http.get("/v1/adapters/wbc/current", params={"wait": 3600})
    assert answer.status_code == 422
    assert "60" in answer.json()["detail"]
