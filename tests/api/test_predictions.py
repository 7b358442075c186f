"""Predictions over both protocols: right scores, typed refusals, no file name repeated, no thread shared."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from api import ServiceOptions, create_app
from continual.domain.drift import Action, Verdict
from continual.domain.errors import AdapterMismatchError

PREDICT = "/v1/adapters/wbc/predict"
INFER = "/v2/models/wbc/infer"
NAME = "DOE^JANE_1970.png"


def test_predict_answers_scores_label_version_and_backbone(door, bench):
    version = bench.champion("wbc")
    body = door.http.post(PREDICT, content=bench.png(200)).json()
    assert body["label"] == "bright"
    assert body["scores"]["bright"] == pytest.approx(190 / 255, abs=0.01)
    assert (body["adapter"], body["version"], body["backbone_digest"]) == ("wbc", version.number, "b" * 64)
    assert body["drift"] is None


def test_predict_takes_a_form_file_and_never_repeats_its_name(door, bench):
    bench.champion("wbc")
    good = door.http.post(PREDICT, files={"file": (NAME, bench.png(60), "image/png")})
    assert good.json()["label"] == "dark"
    bad = door.http.post(PREDICT, files={"file": (NAME, b"not an image at all", "image/png")})
    assert bad.status_code == 422
    assert "DOE" not in good.text + bad.text + str(good.headers) + str(bad.headers)


def test_predict_tells_the_sites_latest_verdict(door, bench):
    bench.champion("wbc")
    number = bench.look("north", Verdict.DATA_FAULT, Action.QUARANTINE)
    drift = door.http.post(PREDICT, params={"site": "north"}, content=bench.png()).json()["drift"]
    assert (drift["verdict"], drift["action"], drift["report"]) == ("data_fault", "quarantine", number)
    assert door.http.post(PREDICT, params={"site": "elsewhere"}, content=bench.png()).json()["drift"] is None


@pytest.mark.parametrize("content", [b"", b"MZ\x90 not an image", b"\x89PNG\r\n\x1a\ntruncated"])
def test_what_cannot_be_read_is_a_422_problem(door, bench, content):
    bench.champion("wbc")
    answer = door.http.post(PREDICT, content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"]


def test_a_blank_image_is_refused_by_the_quality_gate(door, bench):
    bench.champion("wbc")
    answer = door.http.post(INFER, json=tensor(np.zeros((64, 64, 3), int)))
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "QualityError"
    assert answer.json()["error"] == answer.json()["detail"]


def test_too_large_an_upload_is_413_whether_its_length_is_told_or_not(opened, bench):
    loader = ServiceOptions(predictor_loader=lambda _: None, max_upload_bytes=1000)
    door = opened(loader)
    bench.champion("wbc")
    told = door.http.post(PREDICT, content=b"x" * 1001)
    streamed = door.http.post(PREDICT, content=(b"x" * 300 for _ in range(5)))
    for answer in (told, streamed):
        assert answer.status_code == 413
        assert "1000" in answer.json()["detail"]


def test_an_adapter_that_fails_its_proof_of_life_is_503_not_a_prediction(opened, bench):
    def refuse(version):
        raise AdapterMismatchError("version 1 gives other outputs than it was stored with; restore its files")

    door = opened(ServiceOptions(predictor_loader=refuse))
    bench.champion("wbc")
    assert door.http.post(PREDICT, content=bench.png()).status_code == 503
    assert door.http.get("/v2/models/wbc/ready").status_code == 503


def test_predictions_follow_the_champion_and_refuse_a_rejected_version(door, bench):
    bench.champion("wbc")
    bench.rejected("wbc", parent=1)
    bench.champion("wbc", parent=1, trained_on=("north", "south"))
    assert door.http.post(PREDICT, content=bench.png()).json()["version"] == 3
    image = base64.b64encode(bench.png()).decode()
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}]}
    assert door.http.post("/v2/models/wbc/versions/1/infer", json=body).json()["model_version"] == "1"
    assert door.http.post("/v2/models/wbc/versions/2/infer", json=body).status_code == 409


def test_many_askers_at_once_never_share_a_predictor_between_threads(door, bench):
    bench.champion("wbc")
    images = {level: bench.png(level) for level in (60, 120, 180, 240)}

    def ask(level: int) -> float:
        return door.http.post(PREDICT, content=images[level]).json()["scores"]["bright"] - (level - 10) / 255

    with ThreadPoolExecutor(8) as pool:
        assert max(abs(miss) for miss in pool.map(ask, list(images) * 10)) < 0.01


def test_when_every_seat_is_taken_the_client_is_told_to_come_back(opened, bench):
    import threading

    started, go_on = threading.Event(), threading.Event()

    def slow(version):
        started.set()
        go_on.wait(10)
        raise AdapterMismatchError("never served; restore its files")

    door = opened(ServiceOptions(predictor_loader=slow, max_waiting_predictions=1))
    bench.champion("wbc")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(door.http.post, PREDICT, content=bench.png())
        assert started.wait(10)
        second = door.http.post(PREDICT, content=bench.png())
        go_on.set()
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert first.result().status_code == 503


def tensor(pixels: np.ndarray) -> dict:
    return {
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}]
    }


def test_open_inference_protocol_takes_base64_images_and_pixels_alike(door, bench):
    bench.champion("wbc")
    image = base64.b64encode(bench.png(200)).decode()
    body = {"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [image, image]}]}
    answer = door.http.post(INFER, json=body).json()
    scores, labels = answer["outputs"]
    assert (answer["id"], answer["model_version"]) == ("7", "1")
    assert (scores["shape"], labels["data"]) == ([2, 2], ["bright", "bright"])
    pixels = np.full((64, 64, 3), 200)
    pixels[:, 32:] -= 20
    same = door.http.post(INFER, json=tensor(pixels)).json()["outputs"][0]["data"]
    assert same == pytest.approx(scores["data"][:2])
    for numbers in (pixels.tolist(), pixels[None].tolist(), pixels.ravel().astype(float).tolist()):
        body = tensor(pixels)
        body["inputs"][0]["data"] = numbers
        assert door.http.post(INFER, json=body).json()["outputs"][0]["data"] == same


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"datatype": "FP32"}, "FP32"),
        ({"shape": [64, 64]}, "shape"),
        ({"data": [300] * (64 * 64 * 3)}, "300"),
        ({"data": [1, 2, 3]}, "shape"),
        ({"data": [90] * (64 * 64 * 3 - 1) + [0.5]}, "whole numbers"),
        ({"data": [90] * (64 * 64 * 3 - 1) + [True]}, "whole numbers"),
        ({"data": [90] * (64 * 64 * 3 - 1) + ["90"]}, "whole numbers"),
        ({"data": [90] * (64 * 64 * 3 - 1) + [float("nan")]}, "whole numbers"),
        ({"data": [90] * (64 * 64 * 3 - 1) + [2**70]}, "whole numbers"),
        ({"data": [[[90, 90, 90]] * 32, [[90, 90, 90]] * 96] * 32}, "whole numbers"),
        ({"data": json.loads("[" * 800 + "90" + "]" * 800)}, "whole numbers"),
        ({"datatype": "BYTES", "data": ["%%%"]}, "base64"),
        ({"datatype": "BYTES", "data": []}, "0 images"),
        ({"datatype": "BYTES", "data": ["aGk="] * 17}, "17 images"),
    ],
)
def test_a_tensor_of_another_kind_is_422_and_names_what_is_wrong(door, bench, change, word):
    bench.champion("wbc")
    body = tensor(np.full((64, 64, 3), 90))
    body["inputs"][0].update(change)
    answer = door.http.post(INFER, content=json.dumps(body))
    assert answer.status_code == 422
    assert word in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 100_000, b'{"inputs": []}'])
def test_a_body_that_is_no_inference_request_is_422(door, bench, body):
    bench.champion("wbc")
    assert door.http.post(INFER, content=body).status_code == 422


def test_health_and_metadata_speak_the_open_inference_protocol(door, bench):
    bench.champion("wbc")
    assert door.http.get("/v2/health/live").json() == {"live": True}
    assert door.http.get("/v2/health/ready").json() == {"ready": True}
    assert door.http.get("/v2/models/wbc/ready").json()["ready"] is True
    assert door.http.get("/v2/models/wbc").json()["outputs"][0]["shape"] == [-1, 2]
    assert door.http.get("/v2/models/nothing/ready").status_code == 404


def test_a_starting_service_loads_its_champions_and_outlives_one_that_cannot_be_loaded(registry, bench, caplog):
    loaded = []

    def load(version):
        if version.adapter == "broken":
            raise AdapterMismatchError("version 1 gives other outputs than it was stored with; restore its files")
        loaded.append(version.adapter)

    async def start():
        app = create_app(registry, ServiceOptions(predictor_loader=load, preload=True))
        async with app.router.lifespan_context(app):
            async with asyncio.timeout(10):
                while not loaded:
                    await asyncio.sleep(0.01)

    bench.champion("broken")
    bench.champion("wbc")
    asyncio.run(start())
    assert loaded == ["wbc"]
    assert "champion of broken is not loaded: version 1 gives other outputs" in caplog.text
