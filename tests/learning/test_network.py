"""LoRA's places, what trains, and the split between cached prefix and tuned suffix."""

import re

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from continual.domain.errors import LearningError
from continual.learning import AdaptedNetwork, LoraShape, build_network, check_image_size, first_tuned_block
from continual.learning.backbones import frozen_features
from continual.learning.network import embed_prefix
from continual.learning.peft_methods import PROJECTIONS


def _tuned(network):
    return {name for name, module in network.vision.named_modules() if isinstance(module, BaseTunerLayer)}


def _shaken(network):
    """Every trainable weight at random: an adapter that does something."""
    torch.manual_seed(3)
    for weight in network.trainable().values():
        torch.nn.init.normal_(weight, std=0.1)
    return network


def test_lora_sits_on_the_projections_of_the_last_blocks_and_never_on_patch_embed(toy):
    expected = {f"blocks.{block}.{module}" for block in (2, 3) for module in PROJECTIONS}
    assert _tuned(toy.fresh()) == expected


def test_lora_on_every_block_still_leaves_patch_embed_alone(toy):
    network = AdaptedNetwork(build_network(toy.weights), LoraShape(2, 4, blocks=4), ("a", "b"))
    assert network.split == 0
    assert len(_tuned(network)) == 4 * len(PROJECTIONS)
    assert not any("patch_embed" in name for name in _tuned(network))


@pytest.mark.parametrize("blocks", [0, -1, 5])
def test_more_blocks_than_the_backbone_has_is_an_error(toy, blocks):
    with pytest.raises(LearningError, match=f"last {blocks} blocks of a backbone with 4; choose 1 to 4"):
        first_tuned_block(build_network(toy.weights), LoraShape(blocks=blocks))


def test_only_lora_weights_and_the_head_train(toy):
    network = toy.fresh()
    names = set(network.trainable())
    assert {name for name in names if not re.search(r"\.lora_[AB]\.", name)} == {"head.weight", "head.bias"}
    tokens = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(1))
    _shaken(network)(tokens).square().sum().backward()
    assert {name for name, weight in network.named_parameters() if weight.grad is not None} == names


def test_an_untrained_adapter_says_nothing_and_changes_no_feature(toy):
    network, frozen = toy.fresh(), build_network(toy.weights)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    tokens = embed_prefix(network.vision, images, network.split)
    assert torch.equal(network(tokens), torch.zeros(3, 2))
    with torch.no_grad():
        assert torch.allclose(network.features(tokens), frozen_features(frozen, frozen.forward_features(images)))


@pytest.mark.parametrize("side", [64, 96])
def test_the_prefix_and_the_suffix_together_are_the_whole_network(toy, side):
    network = _shaken(toy.fresh())
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        split = network(embed_prefix(network.vision, images, network.split))
        whole = network.head(frozen_features(network.vision, network.vision.forward_features(images)))
    assert split.std() > 0.01
    assert torch.allclose(split, whole, atol=1e-5)


def test_only_the_head_ever_enters_train_mode(toy):
    network = toy.fresh().train()
    assert network.head.training
    assert not any(module.training for module in network.peft.modules())
    assert not any(module.training for module in network.eval().modules())


def test_trainable_weights_of_the_real_backbone_are_below_two_percent(real_network):
    network = AdaptedNetwork(real_network, LoraShape(), ("normal", "pneumonia"))
    assert network.split == 6
    assert 0.005 < network.trainable_share() < 0.02
    assert not any("patch_embed" in name for name in _tuned(network))
    images = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    _shaken(network)
    with torch.no_grad():
        split = network(embed_prefix(network.vision, images, network.split))
        whole = network.head(frozen_features(network.vision, network.vision.forward_features(images)))
    assert torch.allclose(split, whole, atol=1e-3)


@pytest.mark.parametrize(("side", "nearest"), [(63, 64), (8, 16), (0, 16)])
def test_images_that_patches_do_not_divide_are_an_error_with_the_nearest_side(toy, side, nearest):
    with pytest.raises(LearningError, match=f"images of {side} pixels .* patches of 16; choose {nearest}"):
        check_image_size(build_network(toy.weights), side)


def test_what_an_untrained_adapter_starts_from_depends_on_its_seed_alone(toy):
    def started(seed, spent):
        torch.rand(spent)
        network = AdaptedNetwork(build_network(toy.weights), LoraShape(2, 4, blocks=2), ("a", "b"), seed)
        return torch.cat([weight.detach().flatten() for weight in network.trainable().values()])

    assert torch.equal(started(5, spent=1), started(5, spent=7))
    assert not torch.equal(started(5, spent=1), started(6, spent=1))


def test_building_an_adapter_leaves_the_callers_random_stream_alone(toy):
    network = build_network(toy.weights)
    before = torch.random.get_rng_state()
    AdaptedNetwork(network, LoraShape(2, 4, blocks=2), ("a", "b"), 5)
    assert torch.equal(torch.random.get_rng_state(), before)
