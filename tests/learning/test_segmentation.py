"""The segmenting network, its loss, how it is judged and calibrated, its files and its predictor."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.adapters import Task
from continual.domain.errors import AdapterMismatchError
from continual.domain.metrics import chance_dice, dice
from continual.domain.samples import IGNORED, Split
from continual.learning import (
    AdaptedNetwork,
    LoraShape,
    MaskPredictor,
    SegmentingNetwork,
    TileGrid,
    build_network,
    calibrate,
    load_predictor,
    network_record,
    probabilities,
    read_adapter,
    site_outcomes,
    write_adapter,
)
from continual.learning.segmentation.loss import DiceCrossEntropy

CPU = torch.device("cpu")
MASK = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [IGNORED] * 4, [IGNORED] * 4]])


def _sure(mask, height=9.0):
    scores = torch.zeros(len(mask), 2, *mask.shape[1:])
    return scores.scatter(1, torch.where(mask == IGNORED, 0, mask)[:, None], height)


def test_the_loss_is_nothing_for_the_mask_itself_and_much_for_its_opposite():
    loss = DiceCrossEntropy()
    assert loss(_sure(MASK), MASK).item() == pytest.approx(0, abs=1e-3)
    wrong = torch.where(MASK == IGNORED, MASK, 1 - MASK)
    # Nine of cross-entropy; of Dice only what one smoothing pixel in nine leaves.
    assert loss(_sure(wrong), MASK).item() == pytest.approx(9 + 1 - 1 / 9, abs=2e-3)


def test_pixels_outside_the_field_of_view_have_no_part_in_the_loss():
    loss, scores = DiceCrossEntropy(), torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    wild = scores.clone()
    wild[:, :, 2:] = 30.0 * torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(loss(scores, MASK), loss(wild, MASK))
    scores.requires_grad_()
    loss(scores, torch.full_like(MASK, IGNORED)).backward()
    assert scores.grad.abs().max() == 0


def test_importance_is_of_the_dense_loss_one_tile_at_a_time(dense, dense_champion):
    from continual.learning.segmentation.draws import tile_examples
    from continual.learning.strategies.ewc import measure_importance

    network = dense_champion.network()
    examples = list(tile_examples(dense.cache, dense_champion.memory))[:2]
    squares = []
    for inputs, mask in examples:
        network.zero_grad()
        DiceCrossEntropy()(network(*(part[None] for part in inputs)), mask[None]).backward()
        squares.append(network.head.scores.weight.grad.square())
    measured = measure_importance(network, examples)["head.scores.weight"]
    assert torch.allclose(measured, torch.stack(squares).mean(dim=0), rtol=1e-4)
    assert measured.abs().max() > 0


def test_a_grown_decoder_says_the_same_of_the_old_classes(dense, dense_champion):
    network = dense_champion.network()
    inputs = [part[None] for part in dense.cache.inputs(dense_champion.memory[0].digest, 0)]
    with torch.no_grad():
        before = network(*inputs)
        network.grow_head(("lesion", "scar"))
        after = network(*inputs)
    assert network.classes == ("lesion", "scar")
    assert torch.equal(after[:, :2], before)
    assert after[:, 2].abs().max() == 0


def test_outcomes_are_the_dice_of_each_image_and_what_a_constant_answer_reaches(dense, dense_champion):
    network, samples = dense_champion.network(), dense.samples["north", Split.TEST]
    unmasked = replace(samples[0], mask=None)
    outcomes, score = site_outcomes(network, dense.cache, "north", [*samples, unmasked], lambda _n: None)
    predictor = load_predictor(dense.weights.data, dense_champion.files)
    assert isinstance(predictor, MaskPredictor)
    served = [predictor.predict_mask(dense.pixels(sample)).mask for sample in samples]
    masks = [dense.cache.whole_mask(sample) for sample in samples]
    # What is served from pixels is what was judged from the cache, but for its 16 bits.
    assert outcomes.scores == pytest.approx([dice(m, s, 1) for m, s in zip(masks, served, strict=True)], abs=5e-3)
    assert score.value == pytest.approx(np.mean(outcomes.scores))
    assert score.value > 0.9
    assert (outcomes.labels, len(outcomes.subjects), score.samples) == ((), 6, 6)
    assert outcomes.chance == chance_dice(masks, 1)
    assert 0 <= score.calibration_error < 0.2


def test_probabilities_are_means_over_pixels_the_background_first(dense, dense_champion):
    digests = [sample.digest for sample in dense.samples["north", Split.TEST]]
    found = probabilities(dense_champion.network(), dense.cache, digests, lambda _n: None)
    assert found.shape == (6, 2)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert probabilities(dense_champion.network(), dense.cache, [], lambda _n: None).shape == (0, 2)


def test_calibration_finds_the_bias_that_a_timid_network_lacks(dense, dense_champion):
    network, samples = dense_champion.network(), dense.samples["north", Split.TRAIN]
    with torch.no_grad():
        network.head.scores.bias[0] += 6.0
    timid = dense.score(network, "north").dice
    calibrate(network, dense.cache, samples, lambda _n: None)
    assert network.foreground_bias > 0
    assert dense.score(network, "north").dice > timid
    assert network.temperature != 1.0
    assert calibrate(network, dense.cache, [], lambda _n: None) == 1.0
    assert network.foreground_bias == 0.0


def test_a_version_keeps_its_task_tile_bias_and_classes_and_its_card_tells_them(dense, dense_champion):
    network = dense_champion.network()
    network.foreground_bias = 0.75
    files = write_adapter(network, dense_champion.importance, dense.record(network))
    told = json.loads(files["record.json"])["network"]
    assert (told["task"], told["tile"], told["image_size"], told["classes"]) == ("segmentation", 32, 64, ["lesion"])
    read = read_adapter(dense.weights, files, CPU)
    assert isinstance(read, SegmentingNetwork)
    assert read.foreground_bias == 0.75
    assert len(files["golden.safetensors"]) < 10_000
    card = files["README.md"].decode()
    assert "| site (frozen test split) | dice |" in card
    assert "in tiles of 32 pixels" in card


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"foreground_bias": 40.0}, "foreground's bias is 40.0, must lie between -2.0 and 2.0"),
        ({"foreground_bias": None}, "foreground's bias is None"),
        ({"classes": ["lesion", "scar"]}, "weights do not fit"),
    ],
)
def test_a_version_whose_record_does_not_fit_is_refused(dense, dense_champion, changed, match):
    record = json.loads(dense_champion.files["record.json"])
    record["network"] |= changed
    with pytest.raises(AdapterMismatchError, match=match):
        read_adapter(dense.weights, {**dense_champion.files, "record.json": json.dumps(record).encode()}, CPU)


def test_a_decoder_that_does_not_reproduce_its_golden_outputs_is_refused(dense, dense_champion):
    other = dense.fresh(seed=5)
    files = {**dense_champion.files}
    files["head.safetensors"] = write_adapter(other, {}, dense.record(other))["head.safetensors"]
    with pytest.raises(AdapterMismatchError, match="golden outputs differ"):
        read_adapter(dense.weights, files, CPU)


def test_a_record_that_names_no_task_classifies(toy, champion):
    record = json.loads(champion.files["record.json"])
    assert record["network"].pop("task") == "classification"
    assert isinstance(
        read_adapter(toy.weights, {**champion.files, "record.json": json.dumps(record).encode()}, CPU), AdaptedNetwork
    )


def test_a_predictor_answers_at_the_images_own_size(dense, dense_champion):
    predictor = load_predictor(dense.weights.data, dense_champion.files)
    pixels = dense.pixels(dense.samples["north", Split.TEST][0])
    larger = np.repeat(np.repeat(pixels, 3, axis=0), 2, axis=1)
    answer = predictor.predict_mask(larger)
    assert predictor.task is Task.SEGMENTATION
    assert answer.mask.shape == (192, 128)
    assert answer.mask.dtype == np.uint8
    assert answer.shares == predictor.predict(larger) == {"lesion": np.mean(answer.mask == 1)}
    assert 0.5 < answer.confidence <= 1


def test_on_the_real_backbone_two_hundredths_of_the_weights_learn_and_a_version_is_under_five_megabytes(real_weights):
    network = SegmentingNetwork(build_network(real_weights), LoraShape(), ("vessel",), TileGrid(504, 168))
    assert network.trainable_share() < 0.02
    importance = {name: torch.zeros_like(weight) for name, weight in network.trainable().items()}
    files = write_adapter(network, importance, {"network": network_record(network, real_weights, 504)})
    assert sum(map(len, files.values())) < 5_000_000
