"""Evaluation and serving say the same of the same image."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.errors import AdapterMismatchError, BackboneError
from continual.domain.metrics import balanced_accuracy, expected_calibration_error
from continual.domain.samples import Split
from continual.learning import (
    ActivationCache,
    build_network,
    load_predictor,
    network_record,
    probabilities,
    read_adapter,
    site_outcomes,
)
from continual.learning.views import standardise, view_of


def _quiet(_number):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def predictor(champion, toy):
    return load_predictor(toy.weights.data, champion.files)


@pytest.fixture(scope="module")
def network(champion):
    return champion.network()


def _mixed(toy):
    """Samples that the champion gets right (north) and wrong (south), 12 in all."""
    return [*toy.samples["north", Split.TEST][:8], *toy.samples["south", Split.TEST][:4]]


def test_probabilities_sum_to_one_and_rows_follow_the_order_asked_for(toy, network):
    digests = [sample.digest for group in toy.samples.values() for sample in group][:70]
    told = []
    rows = probabilities(network, toy.cache, digests, told.append)
    assert rows.shape == (70, 2)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(probabilities(network, toy.cache, digests[::-1], _quiet), rows[::-1], atol=1e-6)
    assert sum(told) == 70
    assert probabilities(network, toy.cache, [], _quiet).shape == (0, 2)


def test_outcomes_keep_the_samples_order_and_leave_unlabelled_ones_out(toy, network):
    samples = _mixed(toy)
    samples[3] = replace(samples[3], label=None)
    outcomes, score = site_outcomes(network, toy.cache, "north", samples, _quiet)
    kept = [sample for sample in samples if sample.label is not None]
    assert outcomes.site == score.site == "north"
    assert outcomes.subjects == tuple(sample.subject for sample in kept)
    assert outcomes.labels == tuple(sample.label for sample in kept)
    assert score.samples == len(outcomes.predicted) == 11


def test_scores_are_the_metrics_of_the_outcomes(toy, network):
    samples = _mixed(toy)
    outcomes, score = site_outcomes(network, toy.cache, "north", samples, _quiet)
    rows = probabilities(network, toy.cache, [sample.digest for sample in samples], _quiet)
    assert outcomes.predicted == tuple(network.classes[index] for index in rows.argmax(axis=1))
    assert score.balanced_accuracy == balanced_accuracy(outcomes.labels, outcomes.predicted)
    assert 0.5 < score.balanced_accuracy < 1
    correct = np.array(outcomes.labels) == np.array(outcomes.predicted)
    assert score.calibration_error == expected_calibration_error(rows.max(axis=1), correct)


def test_a_site_without_a_label_has_no_score(toy, network):
    unlabelled = [replace(sample, label=None) for sample in _mixed(toy)]
    with pytest.raises(ValueError, match="0 samples"):
        site_outcomes(network, toy.cache, "north", unlabelled, _quiet)


def test_serving_an_image_gives_what_evaluation_gave(toy, network, predictor):
    samples = _mixed(toy)
    rows = probabilities(network, toy.cache, [sample.digest for sample in samples], _quiet)
    for sample, row in zip(samples, rows, strict=True):
        served = predictor.predict(toy.pixels(sample))
        assert tuple(served) == network.classes == predictor.classes
        assert sum(served.values()) == pytest.approx(1, abs=1e-6)
        # Cached tokens are 16-bit.
        assert list(served.values()) == pytest.approx(row.tolist(), abs=5e-3)


def test_an_image_of_any_size_is_answered_and_twice_the_same(toy, predictor):
    pixels = np.random.default_rng(1).integers(0, 255, size=(37, 90, 3), dtype=np.uint8)
    assert predictor.predict(pixels) == predictor.predict(pixels)


def test_a_predictor_loads_from_a_path_and_knows_its_backbone(toy, champion, predictor, tmp_path):
    path = tmp_path / "backbone.safetensors"
    path.write_bytes(toy.weights.data)
    pixels = toy.pixels(_mixed(toy)[0])
    loaded = load_predictor(path, champion.files)
    assert loaded.backbone_digest == toy.weights.digest
    assert loaded.predict(pixels) == predictor.predict(pixels)


def test_files_that_do_not_belong_together_make_no_predictor(toy, champion):
    with pytest.raises(AdapterMismatchError, match=r"record\.json"):
        load_predictor(toy.weights.data, {k: v for k, v in champion.files.items() if k != "record.json"})
    with pytest.raises(BackboneError, match="not safetensors"):
        load_predictor(b"junk", champion.files)


@pytest.mark.parametrize("upright", [False, True])
def test_an_answer_from_several_views_is_the_mean_of_their_scores_and_evaluated_as_it_is_served(
    toy, champion, tmp_path, upright
):
    record = json.loads(champion.files["record.json"])
    assert record["network"]["test_time_views"] == 1
    record["network"] |= {"test_time_views": 3, "upright": upright}
    files = {**champion.files, "record.json": json.dumps(record).encode()}
    network = read_adapter(toy.weights, files, torch.device("cpu"))
    cache = ActivationCache(
        tmp_path, replace(toy.cache.key, upright=upright), build_network(toy.weights), torch.device("cpu")
    )
    samples, predictor = _mixed(toy)[6:10], load_predictor(toy.weights.data, files)
    cache.fill(samples, 3, toy.pixels, _quiet)
    rows = probabilities(network, cache, [sample.digest for sample in samples], _quiet)
    for sample, row in zip(samples, rows, strict=True):
        pixels = toy.pixels(sample)
        seen = torch.stack([standardise(view_of(pixels, view, upright=upright), 64) for view in range(3)])
        with torch.inference_mode():
            expected = network.calibrated(network.from_images(seen).mean(dim=0, keepdim=True))[0]
        served = list(predictor.predict(pixels).values())
        assert served == pytest.approx(expected.tolist(), abs=1e-6)
        assert row.tolist() == pytest.approx(served, abs=5e-3)
    assert network_record(network, toy.weights, 64)["test_time_views"] == 3
