"""A head that grows: old classes stay as they were, new ones are learnt, and every strategy lives with both."""

from dataclasses import replace

import pytest
import torch

from continual.domain.samples import Split
from continual.learning import (
    STRATEGIES,
    UpdateRequest,
    importance_of,
    probabilities,
    read_adapter,
    site_outcomes,
    write_adapter,
)

CLASSES = ("dim", "bright", "violet")


def _quiet(_number):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def relabelled(toy):
    """South's dim images (violet in hue), by split, under a name that the champion never heard."""
    return {
        split: [replace(s, label="violet") for s in toy.samples["south", split] if s.label == "dim"]
        for split in (Split.TRAIN, Split.TEST)
    }


def test_a_grown_head_keeps_old_rows_bit_for_bit_and_old_classes_in_their_order(champion, toy):
    before, network = champion.network(), champion.network()
    network.grow_head(["violet", "bright", "violet", "amber"])
    assert network.classes == ("dim", "bright", "violet", "amber")
    assert torch.equal(network.head.weight[:2], before.head.weight)
    assert torch.equal(network.head.bias[:2], before.head.bias)
    assert not network.head.weight[2:].any()
    assert not network.head.bias[2:].any()
    assert {"head.weight", "head.bias"} < set(network.trainable())
    digests = [sample.digest for sample in toy.samples["north", Split.TEST]]
    old, new = (probabilities(some, toy.cache, digests, _quiet) for some in (before, network))
    assert (old.argmax(axis=1) == new.argmax(axis=1)).all()


def test_growing_by_classes_that_are_there_already_changes_nothing(champion):
    network = champion.network()
    head = network.head
    network.grow_head(["bright", "dim"])
    assert network.head is head
    assert network.classes == ("dim", "bright")


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_learns_a_new_class_from_a_grown_champion(champion, toy, relabelled, name):
    network = champion.network()
    network.grow_head(["violet"])
    north = toy.samples["north", Split.TRAIN]
    request = UpdateRequest(
        name, relabelled[Split.TRAIN], champion.memory, north, champion.importance, taught=("dim", "bright")
    )
    toy.learn(network, request)
    learnt = site_outcomes(network, toy.cache, "south", relabelled[Split.TEST], _quiet)[1]
    assert learnt.balanced_accuracy > 0.8
    if STRATEGIES[name].replays or STRATEGIES[name].joint:
        assert toy.score(network, "north").balanced_accuracy > 0.8


def test_a_grown_network_is_measured_stored_and_read_with_all_its_classes(champion, toy, relabelled):
    network = champion.network()
    network.grow_head(["violet"])
    samples = [*relabelled[Split.TRAIN], *champion.memory]
    importance = importance_of(network, toy.cache, samples, _quiet)
    assert importance["head.weight"].shape == network.head.weight.shape
    read = read_adapter(toy.weights, write_adapter(network, importance, toy.record(network)), torch.device("cpu"))
    assert read.classes == CLASSES
    assert all(torch.equal(read.state_dict()[name], value) for name, value in network.state_dict().items())


def test_consolidation_holds_old_rows_and_leaves_new_ones_free(champion):
    from continual.learning.strategies.ewc import ElasticWeightConsolidation

    network = champion.network()
    network.grow_head(["violet"])
    anchor = {name: weight.detach().clone() for name, weight in network.trainable().items()}
    plugin = ElasticWeightConsolidation(champion.importance, anchor, strength=1.0)
    with torch.no_grad():
        network.head.weight[2] += 1.0
        network.head.bias[2] += 1.0
    assert plugin.penalty(network).item() == 0
    with torch.no_grad():
        network.head.weight[0] += 1.0
    assert plugin.penalty(network).item() == pytest.approx(
        champion.importance["head.weight"][0].sum().item() / 2, rel=1e-4
    )
