"""Every closed form as a version: exact files, proof of life, and going on from sums as if it had never stopped."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from continual.domain.errors import AdapterMismatchError
from continual.domain.samples import Split
from continual.learning import (
    CLOSED_FORMS,
    ClosedFormNetwork,
    build_network,
    calibrate,
    load_predictor,
    probabilities,
    read_closed_form_learner,
    read_version,
    site_outcomes,
    targets_of,
    version_record,
    write_closed_form,
)

CPU = torch.device("cpu")
SITES = ("north", "south")
CLASSES = ("dim", "bright")
SERVED = ("closed_form.safetensors", "projection.safetensors")
SERVED_LIMIT_BYTES = 5_000_000
SEED = 7


def _quiet(_number):
    """Progress that nobody looks at."""


def _data(toy, site, split=Split.TRAIN):
    samples = toy.samples[site, split]
    return toy.cache.features([s.digest for s in samples]), targets_of([s.label for s in samples], CLASSES)


def _fresh(toy, method):
    return CLOSED_FORMS[method](_data(toy, "north")[0].shape[1], len(CLASSES), SEED)


def _files(toy, method, learner, classes=CLASSES):
    network = ClosedFormNetwork(build_network(toy.weights), method, classes, learner.readout())
    held = [sample for site in SITES for sample in toy.samples[site, Split.TEST]]
    calibrate(network, toy.cache, held, _quiet)
    record = {
        "adapter": "toy",
        "strategy": method,
        "trained_on": list(SITES),
        "network": version_record(network, toy.weights, toy.cache.key.image_size),
        "gate": {"accepted": True},
    }
    return network, write_closed_form(network, learner.sums(), record)


class Stored:
    """A method's version after both sites, as network and as files."""

    def __init__(self, toy, method):
        self.toy, self.method = toy, method
        self.learner = _fresh(toy, method)
        for site in SITES:
            self.learner.learn(*_data(toy, site))
        self.learner.settle(*_data(toy, "south", Split.TEST))
        self.network, self.files = _files(toy, method, self.learner)
        self.read = read_version(toy.weights, self.files, CPU)


@pytest.fixture(scope="module", params=CLOSED_FORMS)
def stored(request, toy):
    return Stored(toy, request.param)


def _changed(files, name, change):
    arrays = {key: value.copy() for key, value in load(files[name]).items()}
    change(arrays)
    return {**files, name: save(arrays)}


def test_the_folder_is_safetensors_json_and_text_and_what_is_served_is_small(stored):
    for name, data in stored.files.items():
        if name.endswith(".safetensors"):
            assert load(data)
        else:
            assert name == "README.md" or json.loads(data)
    assert sum(len(stored.files[name]) for name in SERVED if name in stored.files) < SERVED_LIMIT_BYTES
    assert set(stored.files) - {"projection.safetensors"} == {
        "closed_form.safetensors",
        "sums.safetensors",
        "golden.safetensors",
        "record.json",
        "README.md",
    }


def test_reading_gives_every_score_bit_for_bit_and_writing_again_the_same_files(stored):
    digests = [sample.digest for group in stored.toy.samples.values() for sample in group]
    assert stored.read.classes == CLASSES
    assert stored.read.temperature == stored.network.temperature != 1.0
    found = probabilities(stored.read, stored.toy.cache, digests, _quiet)
    assert np.array_equal(found, probabilities(stored.network, stored.toy.cache, digests, _quiet))
    learner = read_closed_form_learner(stored.files)
    again = write_closed_form(stored.read, learner.sums(), json.loads(stored.files["record.json"]))
    assert again == stored.files


def test_it_knows_more_than_chance_at_both_sites(stored):
    for site in SITES:
        score = site_outcomes(stored.read, stored.toy.cache, site, stored.toy.samples[site, Split.TEST], _quiet)[1]
        assert score.balanced_accuracy > 0.6, site


def test_serving_an_image_gives_what_evaluation_gave(stored):
    predictor = load_predictor(stored.toy.weights.data, stored.files)
    samples = stored.toy.samples["north", Split.TEST][:6]
    rows = probabilities(stored.read, stored.toy.cache, [sample.digest for sample in samples], _quiet)
    for sample, row in zip(samples, rows, strict=True):
        served = predictor.predict(stored.toy.pixels(sample))
        assert tuple(served) == predictor.classes == CLASSES
        assert list(served.values()) == pytest.approx(row.tolist(), abs=1e-4)
        assert sum(served.values()) == pytest.approx(1, abs=1e-9)


def test_going_on_from_stored_sums_equals_never_having_stopped_and_learning_all_at_once(stored):
    toy, method = stored.toy, stored.method
    unbroken, halted, once = (_fresh(toy, method) for _ in range(3))
    unbroken.learn(*_data(toy, "north"))
    halted.learn(*_data(toy, "north"))
    resumed = read_closed_form_learner(_files(toy, method, halted)[1])
    for learner in (unbroken, resumed):
        learner.learn(*_data(toy, "south"))
    for name, expected in unbroken.sums().items():
        assert np.array_equal(resumed.sums()[name], expected), name
    parts = [_data(toy, site) for site in SITES]
    once.learn(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
    probe = _data(toy, "south", Split.TEST)[0]
    assert np.array_equal(resumed.scores(probe), unbroken.scores(probe))
    assert np.allclose(resumed.scores(probe), once.scores(probe), rtol=1e-6, atol=1e-6)


def test_the_order_of_sites_leaves_no_trace_beyond_rounding(stored):
    backward = _fresh(stored.toy, stored.method)
    for site in reversed(SITES):
        backward.learn(*_data(stored.toy, site))
    for name, expected in stored.learner.sums().items():
        assert np.allclose(backward.sums()[name], expected, rtol=1e-9), name


def test_a_new_class_gets_a_place_and_the_old_ones_keep_theirs(stored):
    grown = read_closed_form_learner(stored.files)
    grown.grow(3)
    probe, targets = _data(stored.toy, "north", Split.TEST)
    scores = grown.scores(probe)
    assert np.allclose(scores[:, :2], stored.learner.scores(probe))
    assert 2 not in scores.argmax(axis=1)
    random = np.random.default_rng(1)
    strange = 3 * random.normal(size=probe.shape[1]) + random.normal(size=(40, probe.shape[1]))
    grown.learn(strange, np.full(40, 2))
    assert (grown.scores(strange).argmax(axis=1) == 2).mean() > 0.9
    _, files = _files(stored.toy, stored.method, grown, (*CLASSES, "strange"))
    assert read_version(stored.toy.weights, files, CPU).classes == (*CLASSES, "strange")


@pytest.mark.parametrize("name", SERVED)
def test_weights_that_were_changed_do_not_reproduce_the_golden_outputs(stored, name):
    if name not in stored.files:
        assert stored.method == "nearest_mean"
        return

    def bend(arrays):
        for key in arrays:
            # Not a number added to all: normalised features add up to 0, so that would change no score.
            arrays[key] = np.roll(arrays[key], 1, axis=0)

    with pytest.raises(AdapterMismatchError, match="golden outputs differ by"):
        read_version(stored.toy.weights, _changed(stored.files, name, bend), CPU)


def test_a_backbone_that_gives_other_features_is_refused(stored):
    def bend(arrays):
        arrays["features"] = arrays["features"] * 1.05

    with pytest.raises(AdapterMismatchError, match="the backbone gives other features"):
        read_version(stored.toy.weights, _changed(stored.files, "golden.safetensors", bend), CPU)


def test_sums_that_do_not_give_the_readout_are_refused_before_anything_is_added_to_them(stored):
    def bend(arrays):
        name = "gram" if "gram" in arrays else "sums"
        arrays[name] = arrays[name] * 1.5 + 3

    with pytest.raises(AdapterMismatchError, match="sums.safetensors gives other"):
        read_closed_form_learner(_changed(stored.files, "sums.safetensors", bend))
    with pytest.raises(AdapterMismatchError, match="sums.safetensors does not fit"):
        read_closed_form_learner(_changed(stored.files, "sums.safetensors", dict.clear))


@pytest.mark.parametrize("name", ["closed_form.safetensors", "golden.safetensors"])
def test_a_missing_or_cut_file_is_named(stored, name):
    with pytest.raises(AdapterMismatchError, match=name):
        read_version(stored.toy.weights, {k: v for k, v in stored.files.items() if k != name}, CPU)
    with pytest.raises(AdapterMismatchError, match=f"{name} is damaged"):
        read_version(stored.toy.weights, {**stored.files, name: stored.files[name][:-9]}, CPU)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "score 2 classes, its record names 3"),
        ({"method": "telepathy"}, "method 'telepathy' is unknown, known: nearest_mean, random_projection"),
        ({"temperature": 0.0}, "temperature is 0.0, must lie between"),
        ({"backbone_digest": "0" * 64}, "trained on backbone 000000000000"),
    ],
)
def test_a_record_that_says_something_else_is_refused(stored, changed, message):
    record = json.loads(stored.files["record.json"])
    record["network"] |= changed
    with pytest.raises(AdapterMismatchError, match=message):
        read_version(stored.toy.weights, {**stored.files, "record.json": json.dumps(record).encode()}, CPU)


def test_the_model_card_tells_method_backbone_and_classes(stored):
    card = stored.files["README.md"].decode()
    assert f"Closed form `{stored.method}`" in card
    assert stored.toy.weights.digest in card
    assert "Classes: dim, bright" in card
    assert "Learnt, in this order: north, south" in card
    assert "Gate: accepted" in card
    assert len({line.count("|") for line in card.splitlines() if line.startswith("|")}) == 1


def test_a_version_of_lora_weights_is_read_as_before(champion, toy):
    network = read_version(toy.weights, champion.files, CPU)
    expected = champion.network()
    assert all(torch.equal(expected.state_dict()[name], value) for name, value in network.state_dict().items())


def test_weights_of_another_backbones_width_are_refused(stored):
    def narrow(arrays):
        key = "projection" if "projection" in arrays else "means"
        arrays[key] = np.ascontiguousarray(arrays[key][5:] if key == "projection" else arrays[key][:, 5:])

    name = SERVED[1] if SERVED[1] in stored.files else SERVED[0]
    with pytest.raises(AdapterMismatchError, match="do not fit its backbone's features"):
        read_version(stored.toy.weights, _changed(stored.files, name, narrow), CPU)
