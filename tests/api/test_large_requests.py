"""A request of millions of numbers: read while others are served, and not kept beside its pixels."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from api import ServiceOptions, inference_protocol
from api.problems import Problem
from continual.domain.errors import AdapterMismatchError

INFER = "/v2/models/wbc/infer"


def body(height: int, width: int) -> bytes:
    """One image, brighter to the right, as a request's text: no list of its numbers is made here."""
    row = ",".join(["100,120,90"] * (width // 2) + ["200,220,190"] * (width // 2))
    data = ",".join([row] * height)
    return f'{{"inputs":[{{"name":"i","shape":[{height},{width},3],"datatype":"UINT8","data":[{data}]}}]}}'.encode()


def test_others_are_answered_while_a_request_is_read(door, bench, monkeypatch):
    bench.champion("wbc")
    began, go_on, read = threading.Event(), threading.Event(), inference_protocol.parsed

    def slowly(sent):
        began.set()
        assert go_on.wait(60)
        return read(sent)

    monkeypatch.setattr(inference_protocol, "parsed", slowly)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(door.http.post, INFER, content=body(66, 66))
        assert began.wait(60)
        assert door.http.get("/v2/health/live").status_code == 200
        assert not answer.done()
        go_on.set()
    assert answer.result().status_code == 200


def test_a_request_that_waits_keeps_its_pixels_and_no_list_of_its_numbers(opened, bench):
    numbers = 66 * 66 * 3
    kept = []

    def look(version):
        kept.extend(len(held) for held in gc.get_objects() if type(held) is list and len(held) == numbers)
        raise AdapterMismatchError("never served; restore its files")

    door = opened(ServiceOptions(predictor_loader=look))
    bench.champion("wbc")
    assert door.http.post(INFER, content=body(66, 66)).status_code == 503
    assert kept == []


def images_of(data: list, shape: tuple[int, ...]) -> list[np.ndarray]:
    tensor = inference_protocol.Tensor(name="i", shape=list(shape), datatype="UINT8", data=data)
    return [read.args[0] for read in inference_protocol.images_of(tensor)]


def test_pixels_are_those_that_were_sent_however_they_are_nested():
    sent = np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3))
    for data in (sent, sent.ravel(), sent.reshape(-1, 3), sent.reshape(12, 5, 3), sent.astype(float)):
        np.testing.assert_array_equal(images_of(data.tolist(), sent.shape), sent)


def test_rows_of_two_lengths_are_refused():
    rows = np.full((1, 6, 8, 3), 90).tolist()
    rows[0][3].append(rows[0][4].pop())
    with pytest.raises(Problem, match="whole numbers"):
        images_of(rows, (1, 6, 8, 3))
