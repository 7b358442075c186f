"""A base model made from nothing: readable, deterministic, and better than chance."""

import pytest
import torch

from continual.domain.samples import Split
from continual.learning import build_network, pretrain_backbone, weights_from_bytes
from continual.learning.pretraining import ARCHITECTURE, moved_about

STEPS = 4


@pytest.fixture(scope="module")
def taught(toy):
    """Two runs under one seed, one under another, and what progress was told."""
    samples = toy.samples["north", Split.TRAIN][:16]
    images, targets = [toy.pixels(s) for s in samples], [("dim", "bright").index(s.label) for s in samples]
    told = []
    return [pretrain_backbone(images, targets, STEPS, seed, told.append) for seed in (1, 1, 2)], told


def test_pretrained_weights_describe_themselves_and_build(taught):
    weights = weights_from_bytes(taught[0][0])
    assert (weights.name, dict(weights.arguments)) == ("small_vision_transformer", dict(ARCHITECTURE))
    network = build_network(weights)
    assert network.embed_dim == ARCHITECTURE["embed_dim"]
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_pretraining_is_bit_for_bit_the_same_under_one_seed(taught):
    first, again, other = taught[0]
    assert first == again
    assert first != other


def test_progress_hears_of_every_step(taught):
    assert taught[1] == [1] * STEPS * 3


def test_each_image_is_moved_on_its_own_and_loses_no_pixel():
    torch.manual_seed(3)
    image = torch.arange(3 * 8 * 8).float().reshape(3, 8, 8)
    moved = moved_about(image.expand(64, -1, -1, -1), 2)
    assert moved.shape == (64, 3, 8, 8)
    assert torch.equal(moved.flatten(2).sort().values, image.flatten(1).expand(64, -1, -1))
    # The channels move together: 64 apart before, 64 apart after.
    assert torch.equal(moved[:, 1] - moved[:, 0], torch.full((64, 8, 8), 64.0))
    assert len({tuple(one.flatten().tolist()) for one in moved}) > 50
