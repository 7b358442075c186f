"""What a service keeps of its predictions, that no answer waits for it, and what labels then say of versions."""

import base64
import json
import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from api import ServiceOptions
from continual.domain.errors import RegistryError
from continual.domain.predictions import Prediction
from continual.domain.samples import CleanImage
from continual.imaging import content_digest
from registry import OfferedLabel

PREDICT = "/v1/adapters/wbc/predict"
INFER = "/v2/models/wbc/infer"


def _kept(registry, count):
    """The predictions, once the writer has kept as many."""
    give_up = time.monotonic() + 10
    while len(registry.predictions.list()) < count and time.monotonic() < give_up:
        time.sleep(0.01)
    return registry.predictions.list()


def _tensor(png):
    image = base64.b64encode(png).decode()
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [image]}]}


def _take_in(registry, site):
    """One image, so that the site is known."""
    one = CleanImage("c" * 64, site, "d" * 16, None, b"a picture", 4, 4)
    registry.samples.record(site, [one], [], "test")


def test_both_protocols_keep_scores_under_the_digest_that_an_intake_would_give(door, bench):
    version = bench.champion("wbc")
    _take_in(door.registry, "north")
    answer = door.http.post(PREDICT, params={"site": "north"}, content=bench.png(200)).json()
    door.http.post(INFER, json=_tensor(bench.png(60)))
    said = {each.site: each for each in _kept(door.registry, 2)}
    assert said["north"].digest == content_digest(bench.png(200))
    assert said[""].digest == content_digest(bench.png(60))
    assert (said["north"].adapter, said["north"].version) == ("wbc", version.number)
    assert said["north"].scores == answer["scores"]
    assert said[""].predicted == "dark"


def test_a_site_that_never_had_an_image_is_not_kept_with_a_prediction(door, bench):
    bench.champion("wbc")
    _take_in(door.registry, "north")
    for site, level in (("Jane Doe, ward 3", 200), ("north", 60), ("Jane Doe, ward 4", 200)):
        assert door.http.post(PREDICT, params={"site": site}, content=bench.png(level)).status_code == 200
        _kept(door.registry, 1)
    kept = _kept(door.registry, 2)
    assert [(each.site, each.digest) for each in kept] == [
        ("", content_digest(bench.png(200))),
        ("north", content_digest(bench.png(60))),
    ]


def test_the_first_prediction_stays_when_the_same_picture_is_sent_again(door, bench):
    bench.champion("wbc")
    for _ in range(3):
        door.http.post(PREDICT, content=bench.png(200))
    (first,) = _kept(door.registry, 1)
    door.http.post(PREDICT, content=bench.png(60))
    assert _kept(door.registry, 2)[0] == first


def test_a_mask_is_answered_and_not_kept(masks_door, bench):
    assert masks_door.http.post("/v1/adapters/vessels/predict", content=bench.png(200)).status_code == 200
    time.sleep(0.2)
    assert masks_door.registry.predictions.list() == []


def test_an_answer_goes_out_at_once_while_the_database_is_held_by_another(door, bench):
    bench.champion("wbc")
    door.http.post(PREDICT, content=bench.png(200))
    _kept(door.registry, 1)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with door.registry._database.write():
            held.set()
            go_on.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    began = time.monotonic()
    answers = [door.http.post(PREDICT, content=bench.png(level)) for level in (60, 90, 120)]
    took = time.monotonic() - began
    go_on.set()
    holder.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert took < 5
    assert len(_kept(door.registry, 4)) == 4


def test_what_cannot_be_kept_is_logged_without_the_picture_and_answered_all_the_same(door, bench, monkeypatch, caplog):
    def refuse(_self, _predictions):
        raise RegistryError("another writer held the database for over 30 s; repeat the call")

    monkeypatch.setattr("registry.predictions.PredictionStore.add", refuse)
    monkeypatch.setattr("api.prediction_log.PAUSE_SECONDS", 0.01)
    bench.champion("wbc")
    assert door.http.post(PREDICT, params={"site": "north"}, content=bench.png(200)).status_code == 200
    give_up = time.monotonic() + 10
    while not caplog.records and time.monotonic() < give_up:
        time.sleep(0.01)
    assert "1 predictions are not kept: another writer" in caplog.text
    assert content_digest(bench.png(200)) not in caplog.text


def test_scores_that_are_no_numbers_are_not_kept(opened, bench, caplog):
    class Broken:
        task, classes, backbone_digest = "classification", ("dark", "bright"), "b" * 64

        def predict(self, _pixels):
            return {"dark": math.nan, "bright": math.nan}

    door = opened(ServiceOptions(predictor_loader=lambda _: Broken()))
    bench.champion("wbc")
    door.http.post(PREDICT, content=bench.png(200))
    assert "1 predictions of wbc are not kept" in caplog.text
    assert door.registry.predictions.list() == []


def test_performance_is_told_by_version_and_month_and_as_of_a_time(door, bench):
    bench.champion("wbc")
    _take_in(door.registry, "north")
    levels = (40, 60, 80, 200, 220, 240)
    for level in levels:
        door.http.post(PREDICT, params={"site": "north"}, content=bench.png(level))
    _kept(door.registry, len(levels))
    assert door.http.get("/v1/adapters/wbc/performance").json() == []
    # The brightness is right about all but the two that are labelled the other way round.
    labels = ["dark", "dark", "bright", "bright", "bright", "dark"]
    offered = [OfferedLabel(content_digest(bench.png(at)), label) for at, label in zip(levels, labels, strict=True)]
    door.registry.late_labels.add(offered, "lab")
    (row,) = door.http.get("/v1/adapters/wbc/performance").json()
    assert (row["version"], row["labelled"], row["subjects"]) == (1, 6, 6)
    assert row["balanced_accuracy"] == pytest.approx(2 / 3)
    assert 0 <= row["low"] <= row["balanced_accuracy"] <= row["high"] <= 1
    assert row["month"] == f"{datetime.now(UTC):%Y-%m}"
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert door.http.get("/v1/adapters/wbc/performance", params={"as_of": before}).json() == []
    assert door.http.get("/v1/adapters/nothing/performance").status_code == 404
    assert door.http.get("/v1/adapters/wbc/performance", params={"as_of": "soon"}).status_code == 422


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
def test_a_time_that_utc_does_not_have_is_refused(door, bench, as_of):
    bench.champion("wbc")
    answer = door.http.get("/v1/adapters/wbc/performance", params={"as_of": as_of})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "must be of the years 1 to 9999 in UTC" in answer.json()["detail"]
    assert door.http.get("/v1/adapters/wbc/performance", params={"as_of": "0001-01-01T00:00"}).json() == []


def test_a_site_that_nobody_named_is_answered_with_those_there_are(door, bench):
    bench.champion("wbc")
    _take_in(door.registry, "north")
    _take_in(door.registry, "south")
    answer = door.http.get("/v1/adapters/wbc/performance", params={"site": "nosuch"})
    assert (answer.status_code, answer.json()["error_type"]) == (404, "NotFoundError")
    assert "there is no site 'nosuch'; known: north, south; GET /v1/sites lists them" in answer.json()["detail"]
    for params in ({"site": "south"}, {}):
        answer = door.http.get("/v1/adapters/wbc/performance", params=params)
        assert (answer.status_code, answer.json()) == (200, [])


def test_a_site_that_only_a_prediction_or_its_label_names_is_known(door, bench):
    bench.champion("wbc")
    of_prediction = Prediction("wbc", 1, "east", "a" * 64, {"dark": 0.9, "bright": 0.1}, datetime.now(UTC))
    door.registry.predictions.add([of_prediction, replace(of_prediction, site="", digest="b" * 64)])
    door.registry.late_labels.add([OfferedLabel("b" * 64, "dark", "west")], "lab")
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for site in ("east", "west"):
        answer = door.http.get("/v1/adapters/wbc/performance", params={"site": site, "as_of": before})
        assert (answer.status_code, answer.json()) == (200, [])
    (row,) = door.http.get("/v1/adapters/wbc/performance", params={"site": "west"}).json()
    assert row["labelled"] == 1


def test_pixels_sent_as_a_tensor_have_the_digest_of_their_file(door, bench):
    bench.champion("wbc")
    pixels = np.random.default_rng(3).integers(0, 255, size=(24, 20, 3))
    data = pixels.ravel().tolist()
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [24, 20, 3], "data": data}]}
    assert door.http.post(INFER, content=json.dumps(body)).status_code == 200
    from continual.domain.digests import sha256_pixels

    assert _kept(door.registry, 1)[0].digest == sha256_pixels(pixels.astype(np.uint8))
