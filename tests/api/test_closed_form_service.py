"""A real closed-form version in a real registry, loaded and asked as the server does it."""

import base64
import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from api.server import options_of
from continual.domain.adapters import VersionDraft
from continual.domain.samples import Split
from continual.settings import load_settings

CLASSES = ("dim", "bright")
SITES = ("north", "south")
PREDICT = "/v1/adapters/stripes/predict"
MODEL = "/v2/models/stripes"


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=["nearest_mean", "random_projection"])
def fitted(request, toy):
    """Method, record and files of a closed form that learnt both toy sites."""
    from continual.learning import (
        CLOSED_FORMS,
        ClosedFormNetwork,
        build_network,
        site_outcomes,
        targets_of,
        version_record,
        write_closed_form,
    )

    samples = [sample for site in SITES for sample in toy.samples[site, Split.TRAIN]]
    features = toy.cache.features([sample.digest for sample in samples])
    learner = CLOSED_FORMS[request.param](features.shape[1], len(CLASSES), 7)
    learner.learn(features, targets_of([str(sample.label) for sample in samples], CLASSES))
    network = ClosedFormNetwork(build_network(toy.weights), request.param, CLASSES, learner.readout())
    scores = {
        site: asdict(site_outcomes(network, toy.cache, site, toy.samples[site, Split.TEST], lambda _n: None)[1])
        for site in SITES
    }
    record = {
        "adapter": "stripes",
        "strategy": request.param,
        "trained_on": list(SITES),
        "network": version_record(network, toy.weights, toy.cache.key.image_size),
        "scores": scores,
        "gate": {"accepted": True},
    }
    return request.param, record, write_closed_form(network, learner.sums(), record)


@pytest.fixture
def served(fitted, toy, bench, opened, tmp_path):
    """The version as champion of a registry, behind the loader that `continual serve` uses."""
    method, record, files = fitted
    draft = VersionDraft(
        adapter="stripes",
        parent=None,
        strategy=method,
        backbone_digest=toy.weights.digest,
        trained_on=SITES,
        classes=CLASSES,
        metric="balanced_accuracy",
        metrics={site: score["balanced_accuracy"] for site, score in record["scores"].items()},
        record=record,
    )
    adapters = bench.registry.adapters
    bench.registry.artifacts.put(toy.weights.data)
    version = adapters.register(draft, files, "test")
    adapters.promote("stripes", version.number, bench.gate(True), "champion", "test", "the gate passed")
    return opened(options_of(load_settings(tmp_path), bench.registry))


def test_predict_answers_as_the_version_was_measured(served, fitted, toy):
    method, record, _ = fitted
    tested = toy.samples["north", Split.TEST]
    answers = [served.http.post(PREDICT, content=_png(toy.pixels(sample))).json() for sample in tested]
    assert all(answer["backbone_digest"] == toy.weights.digest for answer in answers)
    assert all(sum(answer["scores"].values()) == pytest.approx(1, abs=1e-6) for answer in answers)
    recalls = [
        np.mean([a["label"] == label for a, s in zip(answers, tested, strict=True) if s.label == label])
        for label in CLASSES
    ]
    assert np.mean(recalls) == pytest.approx(record["scores"]["north"]["balanced_accuracy"])


def test_the_open_inference_protocol_names_its_platform_and_answers(served, toy):
    assert served.http.get(MODEL).json()["platform"] == "closed_form"
    assert served.http.get(f"{MODEL}/ready").status_code == 200
    image = _png(toy.pixels(toy.samples["north", Split.TEST][0]))
    body = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(image).decode()]}]
    }
    outputs = {each["name"]: each for each in served.http.post(f"{MODEL}/infer", json=body).json()["outputs"]}
    assert outputs["scores"]["shape"] == [1, 2]
    assert outputs["label"]["data"][0] in CLASSES


def test_dashboard_current_and_files_show_it_like_any_version(served, fitted):
    method, record, files = fitted
    page = served.http.get("/dashboard?adapter=stripes")
    assert page.status_code == 200
    assert method in page.text
    current = served.http.get("/v1/adapters/stripes/current").json()
    assert set(current["links"]["files"]) == set(files)
    stored = served.http.get(current["links"]["files"]["record.json"]["href"]).content
    assert json.loads(stored)["network"]["kind"] == "closed_form"


def test_a_damaged_closed_form_is_503_not_a_prediction(served, fitted, toy, bench, opened):
    _, _, files = fitted
    version = bench.registry.adapters.current("stripes")
    bench.registry.artifacts.path(version.files["closed_form.safetensors"][0]).write_bytes(b"damaged")
    answer = served.http.post(PREDICT, content=_png(toy.pixels(toy.samples["north", Split.TEST][0])))
    assert answer.status_code == 500
    assert "scores" not in answer.json()
