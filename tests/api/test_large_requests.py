"""A request of millions of numbers: read in pieces while others are served, and not kept beside its pixels."""

import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api import ServiceOptions, inference_protocol
from api.json_in_pieces import loads_in_pieces
from api.problems import Problem
from continual.domain.errors import AdapterMismatchError

INFER = "/v2/models/wbc/infer"


def body(height: int, width: int, nested: bool) -> bytes:
    """One image, brighter to the right, as a request's text: no list of its numbers is made here."""
    dark, bright = ("[100,120,90]", "[200,220,190]") if nested else ("100,120,90", "200,220,190")
    row = ",".join([dark] * (width // 2) + [bright] * (width // 2))
    data = ",".join([f"[{row}]" if nested else row] * height)
    return f'{{"inputs":[{{"name":"i","shape":[{height},{width},3],"datatype":"UINT8","data":[{data}]}}]}}'.encode()


@pytest.mark.parametrize("nested", [False, True])
def test_nobody_waits_while_millions_of_pixels_are_read(door, bench, nested):
    bench.champion("wbc")
    door.http.get("/v2/models/wbc/ready")
    sent = body(600, 600 if nested else 1200, nested)
    slowest_s = 0.0
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        answer = pool.submit(door.http.post, INFER, content=sent)
        while not answer.done():
            asked = time.perf_counter()
            door.http.get("/v2/health/live")
            slowest_s = max(slowest_s, time.perf_counter() - asked)
        took_s = time.perf_counter() - began
    assert answer.result().status_code == 200
    assert slowest_s < 0.4 * took_s


def test_a_request_that_waits_keeps_its_pixels_and_no_list_of_its_numbers(opened, bench):
    numbers = 66 * 66 * 3
    kept = []

    def look(version):
        kept.extend(len(held) for held in gc.get_objects() if type(held) is list and len(held) == numbers)
        raise AdapterMismatchError("never served; restore its files")

    door = opened(ServiceOptions(predictor_loader=look))
    bench.champion("wbc")
    assert door.http.post(INFER, content=body(66, 66, nested=False)).status_code == 503
    assert kept == []


def images_of(data: list, shape: tuple[int, ...]) -> list[np.ndarray]:
    tensor = inference_protocol.Tensor(name="i", shape=list(shape), datatype="UINT8", data=data)
    return [read.args[0] for read in inference_protocol.images_of(tensor)]


def test_pixels_read_in_pieces_are_the_pixels_that_were_sent(monkeypatch):
    monkeypatch.setattr(inference_protocol, "NUMBERS_PER_PIECE", 20)
    sent = np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3))
    for data in (sent, sent.ravel(), sent.reshape(-1, 3), sent.reshape(12, 5, 3), sent.astype(float)):
        np.testing.assert_array_equal(images_of(data.tolist(), sent.shape), sent)


def test_rows_of_two_lengths_are_refused_in_whatever_pieces_they_are_read(monkeypatch):
    rows = np.full((1, 6, 8, 3), 90).tolist()
    rows[0][3].append(rows[0][4].pop())
    for numbers in (1, 20, 10_000):
        monkeypatch.setattr(inference_protocol, "NUMBERS_PER_PIECE", numbers)
        with pytest.raises(Problem, match="whole numbers"):
            images_of(rows, (1, 6, 8, 3))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text('],[{"\\ 1é'),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text("a,]", max_size=2), inner, max_size=3),
    max_leaves=40,
)


@given(VALUES, st.sampled_from([None, 0, 1]), st.integers(1, 40))
def test_json_in_pieces_of_any_length_is_what_it_is_in_one(value, indent, piece_characters):
    text = json.dumps(value, indent=indent).encode()
    assert repr(loads_in_pieces(text, piece_characters)) == repr(json.loads(text))


@given(st.text('[[]],,1 "{:}', max_size=16), st.integers(1, 20))
@example("[1,,2]", 4)
@example("[1,2,]", 6)
@example("[1,        ]", 4)
@example("[ ,1]", 9)
@example("[[1],[2],,[3]]", 9)
@example("[[1],[2]", 20)
def test_json_in_pieces_refuses_what_is_refused_in_one(text, piece_characters):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            loads_in_pieces(text.encode(), piece_characters)
    else:
        assert loads_in_pieces(text.encode(), piece_characters) == expected
