"""The line between champion and candidate: its ends are exact, and only trainable weights move."""

import pytest
import torch

from continual.learning import WeightLine


def trained(network):
    """Every trainable weight moved away from where it was, as learning would."""
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(torch.full_like(weight, 0.3))
    return network


def weights(network):
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


def test_the_ends_of_the_line_are_the_champion_and_what_was_learnt_bit_for_bit(toy):
    network = toy.fresh()
    champion, line = weights(network), WeightLine(network)
    learnt = weights(trained(network))
    line.end_here()
    line.go(0.0)
    assert all(torch.equal(value, champion[name]) for name, value in weights(network).items())
    line.go(1.0)
    assert all(torch.equal(value, learnt[name]) for name, value in weights(network).items())


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_share_of_the_way_moves_trainable_weights_by_that_share_and_no_other(toy, share):
    network = toy.fresh()
    champion, line = weights(network), WeightLine(network)
    trained(network)
    line.end_here()
    line.go(1.0)
    line.go(share)
    names = set(network.trainable())
    assert names
    for name, value in weights(network).items():
        moved = share * 0.3 if name in names else 0.0
        assert torch.allclose(value, champion[name] + moved, atol=1e-6)
