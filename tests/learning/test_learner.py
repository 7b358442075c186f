"""The loop around a strategy, and elastic weight consolidation against its formula."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from continual.domain.errors import StreamError
from continual.domain.samples import Split
from continual.learning import STRATEGIES, UpdateRequest, importance_of, learn
from continual.learning.patch_dropout import drop_patches
from continual.learning.strategies.ewc import ElasticWeightConsolidation


def _quiet(_number):
    """Progress that nobody looks at."""


def test_an_unknown_strategy_is_an_error_that_lists_the_known_ones(toy):
    with pytest.raises(StreamError, match=re.escape(f"no strategy 'magic'; choose one of {', '.join(STRATEGIES)}")):
        learn(toy.fresh(), toy.cache, UpdateRequest("magic", ()), toy.options, _quiet)


def test_an_experience_without_labels_leaves_the_network_as_it_was(toy):
    network = toy.fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(StreamError, match="none of 0"):
        learn(network, toy.cache, UpdateRequest("naive", ()), toy.options, _quiet)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("steps", [1, 2, 9, 10])
def test_progress_hears_of_every_step_however_few_they_are(toy, steps):
    told = []
    request = UpdateRequest("naive", toy.samples["north", Split.TRAIN])
    learn(toy.fresh(), toy.cache, request, replace(toy.options, steps=steps), told.append)
    assert told == [1] * steps


def test_dropping_patches_keeps_the_class_token_and_each_images_own_share():
    tokens = torch.arange(64 * 9, dtype=torch.float32).reshape(64, 9, 1)
    torch.manual_seed(1)
    kept = drop_patches(tokens, prefix=1, share=0.5)
    assert kept.shape == (64, 5, 1)
    assert torch.equal(kept[:, 0], tokens[:, 0])
    places = [
        tuple(sorted((row - first).int().tolist())) for row, first in zip(kept[:, 1:, 0], tokens[:, 0, 0], strict=True)
    ]
    assert all(len(set(row)) == 4 and set(row) <= set(range(1, 9)) for row in places)
    assert len(set(places)) > 30
    # Every patch is as likely as another: 32 of 64 images each, standard deviation 4.
    assert all(12 <= sum(place in row for row in places) <= 52 for place in range(1, 9))


def test_a_whole_share_drops_nothing_and_a_tiny_one_keeps_a_patch():
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drop_patches(tokens, prefix=1, share=1.0), tokens)
    assert drop_patches(tokens, prefix=1, share=0.01).shape == (2, 2, 3)


def test_more_regularisation_keeps_important_weights_nearer_to_the_champions(champion, toy):
    anchor = {name: weight.detach().clone() for name, weight in champion.network().trainable().items()}

    def distance(strength: float) -> float:
        network = toy.learn(champion.network(), champion.request("ewc"), regularisation=strength, steps=30)
        moved = ((champion.importance[n] * (w - anchor[n]).square()).sum() for n, w in network.trainable().items())
        return float(sum(moved).detach())

    assert distance(1e6) < 0.5 * distance(0.0)


def test_importance_is_the_mean_of_squared_gradients_one_sample_at_a_time(champion, toy):
    network, samples = champion.network(), toy.samples["south", Split.TRAIN][:3]
    found = importance_of(network, toy.cache, samples, _quiet)
    expected = {name: torch.zeros_like(weight) for name, weight in network.trainable().items()}
    for sample in samples:
        tokens = torch.from_numpy(toy.cache.tokens(sample.digest, 0)).float()[None]
        loss = cross_entropy(network(tokens), torch.tensor([network.classes.index(sample.label)]))
        gradients = torch.autograd.grad(loss, list(network.trainable().values()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient.square() / len(samples)
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-9) for name in expected)
    assert sum(float(value.sum()) for value in found.values()) > 0
    assert all(weight.grad is None for weight in network.parameters())


def test_importance_leaves_unlabelled_and_foreign_samples_out(champion, toy):
    samples = toy.samples["north", Split.TRAIN][:2]
    foreign = [
        SimpleNamespace(label=None, digest=samples[0].digest),
        SimpleNamespace(label="other", digest=samples[0].digest),
    ]
    one, other = (
        importance_of(champion.network(), toy.cache, group, _quiet) for group in (samples, [*foreign, *samples])
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_penalty_is_half_the_strength_times_importance_times_squared_distance(champion):
    network = champion.network()
    anchor = {name: weight.detach().clone() for name, weight in network.trainable().items()}
    plugin = ElasticWeightConsolidation(champion.importance, anchor, strength=6.0)
    assert plugin.penalty(network).item() == 0
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(0.5)
    total = sum(float(value.double().sum()) for value in champion.importance.values())
    assert plugin.penalty(network).item() == pytest.approx(6.0 / 2 * 0.25 * total, rel=1e-3)


def test_weight_consolidation_refuses_a_champion_without_importance(champion, toy):
    request = replace(champion.request("replay_ewc"), importance={})
    with pytest.raises(StreamError, match=r"'replay_ewc' holds weights by their importance, .* for 0 weights"):
        toy.learn(champion.network(), request, steps=1)


def test_without_a_champion_weight_consolidation_adds_no_penalty(champion, toy):
    request = UpdateRequest("ewc", toy.samples["south", Split.TRAIN], importance={})
    plain = UpdateRequest("naive", toy.samples["south", Split.TRAIN])
    one, other = (toy.learn(champion.network(), wanted, steps=3) for wanted in (request, plain))
    assert all(torch.equal(one.trainable()[name], value) for name, value in other.trainable().items())
