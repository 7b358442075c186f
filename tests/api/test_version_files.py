"""Downloads: whole, in ranges, with digests that caches and clients can check."""

import base64
import hashlib

import pytest

FILE = "/v1/adapters/wbc/versions/1/files/adapter_model.safetensors"


@pytest.fixture
def weights(bench) -> bytes:
    version = bench.champion("wbc")
    return bench.registry.adapters.file("wbc", version.number, "adapter_model.safetensors")


def test_whole_file_carries_its_digest_and_may_be_kept_for_ever(door, weights):
    answer = door.http.get(FILE)
    expected = base64.b64encode(hashlib.sha256(weights).digest()).decode()
    assert answer.content == weights
    assert answer.headers["repr-digest"] == f"sha-256=:{expected}:"
    assert answer.headers["etag"] == f'"{hashlib.sha256(weights).hexdigest()}"'
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=5-999999999", 5, None)],
)
def test_a_range_answers_206_with_those_bytes_and_the_whole_files_digest(door, weights, asked, start, stop):
    whole = door.http.get(FILE)
    part = door.http.get(FILE, headers={"range": asked})
    assert part.status_code == 206
    assert part.content == weights[start:stop]
    first = weights.index(part.content) if start is None else start % len(weights)
    assert part.headers["content-range"] == f"bytes {first}-{first + len(part.content) - 1}/{len(weights)}"
    assert part.headers["repr-digest"] == whole.headers["repr-digest"]


def test_download_resumed_in_pieces_equals_the_file(door, weights):
    pieces = [
        door.http.get(FILE, headers={"range": f"bytes={at}-{at + 4095}"}).content for at in range(0, len(weights), 4096)
    ]
    assert b"".join(pieces) == weights


def test_a_range_behind_the_end_is_416_and_names_the_size(door, weights):
    answer = door.http.get(FILE, headers={"range": f"bytes={len(weights)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(weights)}"


LONG = "9" * 5000
"""More digits than Python reads as a number."""


@pytest.mark.parametrize(
    "asked",
    [
        *("bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=-"),
        *(pytest.param(f"bytes={LONG}-", id="first"), pytest.param(f"bytes=0-{LONG}", id="last")),
        pytest.param(f"bytes=-{LONG}", id="suffix"),
    ],
)
def test_a_range_that_makes_no_sense_gets_the_whole_file(door, weights, asked):
    answer = door.http.get(FILE, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, weights)


def test_if_range_of_another_file_gets_the_whole_file(door, weights):
    stale = door.http.get(FILE, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert (stale.status_code, stale.content) == (200, weights)
    tag = door.http.get(FILE).headers["etag"]
    assert door.http.get(FILE, headers={"range": "bytes=0-9", "if-range": tag}).status_code == 206


def test_known_tag_answers_304_and_head_tells_the_size(door, weights):
    tag = door.http.get(FILE).headers["etag"]
    assert door.http.get(FILE, headers={"if-none-match": tag}).status_code == 304
    head = door.http.head(FILE)
    assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(weights))


def test_a_file_the_version_does_not_have_is_404_and_lists_those_it_has(door, weights):
    answer = door.http.get("/v1/adapters/wbc/versions/1/files/pytorch_model.bin")
    assert answer.status_code == 404
    assert "adapter_model.safetensors" in answer.json()["detail"]
    assert door.http.get("/v1/adapters/wbc/versions/1/files/..%2f..%2fregistry.db").status_code == 404
