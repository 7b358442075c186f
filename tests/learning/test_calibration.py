"""The temperature: found where the loss is smallest, bounded, kept with the version and applied to whatever is told."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from continual.domain.errors import AdapterMismatchError
from continual.domain.metrics import expected_calibration_error
from continual.domain.samples import Split
from continual.learning import (
    calibrate,
    fit_temperature,
    load_predictor,
    network_record,
    probabilities,
    read_adapter,
    write_adapter,
)
from continual.learning.evaluation import class_scores
from continual.learning.segmentation.box_network import BoxNetwork
from continual.learning.segmentation.judging import _asked

CPU = torch.device("cpu")


def _quiet(_number):
    """Progress that nobody looks at."""


def _told(count, overconfidence, seed=1):
    """Scores whose true temperature is `overconfidence`, and targets drawn from the honest probabilities."""
    random = np.random.default_rng(seed)
    honest = random.normal(scale=2.0, size=(count, 3))
    shares = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    targets = np.array([random.choice(3, p=row) for row in shares])
    return overconfidence * honest, targets


@pytest.mark.parametrize("overconfidence", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_the_overconfidence_that_made_the_scores(overconfidence):
    scores, targets = _told(4000, overconfidence)
    found = fit_temperature(scores, targets, ["all"] * 4000)
    # Over 20 seeds tried, the largest error was 6 %.
    assert found == pytest.approx(overconfidence, rel=0.12)
    held, truth = _told(4000, overconfidence, seed=2)
    errors = []
    for temperature in (1.0, found):
        shares = torch.softmax(torch.from_numpy(held) / temperature, dim=1).numpy()
        errors.append(expected_calibration_error(shares.max(axis=1), shares.argmax(axis=1) == truth))
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 3 or overconfidence == 1.0


def test_classes_that_are_no_possible_answer_make_a_temperature_no_hotter():
    scores, targets = _told(8, 1.0)
    cells, possible = ["all"] * 8, np.ones((8, 12), dtype=bool)
    possible[:, 3:] = False
    alone = fit_temperature(scores, targets, cells)
    out_of_reach = np.hstack([scores, np.full((8, 9), -1e4)])
    assert fit_temperature(out_of_reach, targets, cells, possible) == pytest.approx(alone, rel=1e-6)
    unlikely = np.hstack([scores, np.full((8, 9), -30.0)])
    assert fit_temperature(unlikely, targets, cells, possible) < fit_temperature(unlikely, targets, cells) / 1.05


def test_with_boxes_a_class_is_possible_that_has_one_and_without_boxes_every_class_is():
    class Boxed(BoxNetwork):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.classes = ("liver", "spleen", "kidney")

    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:5, 2:5] = 2
    assert _asked(Boxed(), mask).tolist() == [True, False, True, False]
    # Whatever its scores are: a network for masks may be as sure as it likes.
    assert _asked(SimpleNamespace(classes=("liver", "spleen")), mask).tolist() == [True] * 3


def test_no_other_temperature_has_a_smaller_loss():
    scores, targets = _told(60, 2.0)
    softness = 3 / 63
    wanted = np.full((60, 3), softness / 3)
    wanted[np.arange(60), targets] += 1 - softness

    def loss(temperature):
        return cross_entropy(torch.from_numpy(scores) / temperature, torch.from_numpy(wanted)).item()

    found = fit_temperature(scores, targets, ["all"] * 60)
    assert all(loss(found) <= loss(found * factor) for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0))


def test_every_cell_weighs_the_same_however_many_images_it_has():
    few, few_truth = _told(100, 4.0)
    many, many_truth = _told(100, 0.5, seed=2)
    once = fit_temperature(np.concatenate([few, many]), np.r_[few_truth, many_truth], ["a"] * 100 + ["b"] * 100)
    # Ten times the same images: only the softening of the targets knows of their number.
    often = fit_temperature(
        np.concatenate([few, *[many] * 10]), np.r_[few_truth, np.tile(many_truth, 10)], ["a"] * 100 + ["b"] * 1000
    )
    alone = fit_temperature(
        np.concatenate([few, *[many] * 10]), np.r_[few_truth, np.tile(many_truth, 10)], ["a"] * 1100
    )
    assert often == pytest.approx(once, rel=0.1)
    assert alone < 0.7 * once


def test_faultless_images_do_not_ask_for_certainty_and_hopeless_ones_stay_in_bounds():
    scores = np.array([[2.0, -2.0], [-2.0, 2.0]] * 5)
    right, wrong = np.array([0, 1] * 5), np.array([1, 0] * 5)
    found = fit_temperature(scores, right, ["all"] * 10)
    # As if one image of each class had come besides: 10 + 1 of 12 right.
    assert 1 / (1 + np.exp(-4 / found)) == pytest.approx(11 / 12, abs=1e-6)
    assert fit_temperature(scores, wrong, ["all"] * 10) == pytest.approx(20.0)
    assert fit_temperature(scores * 1e-3, right, ["all"] * 10) == pytest.approx(0.05)
    assert fit_temperature(np.empty((0, 2)), np.empty(0, dtype=int), []) == 1.0


@pytest.fixture(scope="module")
def calibrated(champion, toy):
    """The champion with a temperature, fitted where it is sometimes wrong; its files."""
    network = champion.network()
    found = calibrate(
        network, toy.cache, [*toy.samples["north", Split.TEST], *toy.samples["south", Split.TEST]], _quiet
    )
    assert found == network.temperature
    assert found > 2
    return network, write_adapter(network, champion.importance, toy.record(network))


def test_a_version_keeps_its_temperature_and_only_its_record_and_card_know_it(calibrated, champion, toy):
    network, files = calibrated
    read = read_adapter(toy.weights, files, CPU)
    assert read.temperature == network.temperature
    assert json.loads(files["record.json"])["network"]["temperature"] == network.temperature
    assert f"Temperature of its probabilities: {network.temperature:.3f}" in files["README.md"].decode()
    assert {name for name in files if files[name] != champion.files[name]} == {"record.json", "README.md"}


def test_evaluation_and_serving_tell_the_calibrated_probabilities_and_the_same_class(calibrated, champion, toy):
    network, files = calibrated
    samples = [*toy.samples["north", Split.TEST][:6], *toy.samples["south", Split.TEST][:6]]
    digests = [sample.digest for sample in samples]
    scores = class_scores(network, toy.cache, digests, _quiet)
    rows = probabilities(network, toy.cache, digests, _quiet)
    expected = torch.softmax(torch.from_numpy(scores) / network.temperature, dim=1).numpy()
    assert np.allclose(rows, expected, atol=1e-6)
    raw = probabilities(champion.network(), toy.cache, digests, _quiet)
    assert np.array_equal(rows.argmax(axis=1), raw.argmax(axis=1))
    assert rows.max(axis=1).mean() < raw.max(axis=1).mean() - 0.1
    predictor = load_predictor(toy.weights.data, files)
    for sample, row in zip(samples, rows, strict=True):
        # Cached tokens are 16-bit.
        assert list(predictor.predict(toy.pixels(sample)).values()) == pytest.approx(row.tolist(), abs=5e-3)


def test_a_version_from_before_temperatures_reads_as_one(champion, toy):
    record = json.loads(champion.files["record.json"])
    del record["network"]["temperature"]
    assert (
        read_adapter(toy.weights, {**champion.files, "record.json": json.dumps(record).encode()}, CPU).temperature == 1
    )


@pytest.mark.parametrize("written", [0, -1, 21, "1", None])
def test_a_temperature_out_of_bounds_is_refused(champion, toy, written):
    record = json.loads(champion.files["record.json"])
    record["network"]["temperature"] = written
    with pytest.raises(AdapterMismatchError, match="temperature is .* must lie between 0.05 and 20"):
        read_adapter(toy.weights, {**champion.files, "record.json": json.dumps(record).encode()}, CPU)


def test_samples_without_a_known_label_do_not_count(champion, toy):
    from dataclasses import replace

    network, held = champion.network(), toy.samples["north", Split.TEST]
    expected = calibrate(network, toy.cache, held, _quiet)
    strangers = [replace(held[0], label=None), replace(held[1], label="other")]
    assert calibrate(network, toy.cache, [*strangers, *held], _quiet) == expected
    assert calibrate(network, toy.cache, strangers, _quiet) == 1.0
    assert network_record(network, toy.weights, 64)["temperature"] == 1.0
