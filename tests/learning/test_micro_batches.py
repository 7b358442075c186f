"""A batch learnt in parts, and what happens where a part does not fit into memory.

A hook on the network stands for the device that is too small: it raises what torch raises there. That the parts'
gradient is the batch's is checked for every strategy in `tests/conformance`.
"""

from dataclasses import replace

import pytest
import torch

from continual.domain.errors import LearningError
from continual.learning import Checkpoints, learn

STEPS = 3


def _learn(toy, champion, network, **changed):
    """What was said while the network learnt south; `changed` overrides training options."""
    said = []
    options = replace(toy.options, steps=STEPS, **changed)
    learn(network, toy.cache, champion.request("replay_ewc"), options, lambda _n: None, Checkpoints(say=said.append))
    return said


def _with_room_for(network, images, error=torch.OutOfMemoryError):
    def refuse(_module, inputs):
        if torch.is_grad_enabled() and len(inputs[0]) > images:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")

    network.register_forward_pre_hook(refuse)
    return network


def _same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_says_so_each_time(toy, champion, error):
    small, parted = _with_room_for(champion.network(), 5, error), champion.network()
    assert _learn(toy, champion, small) == [
        "a batch of 16 does not fit into the memory of cpu: halved to 8, 2 of them make a step",
        "a batch of 8 does not fit into the memory of cpu: halved to 4, 4 of them make a step",
    ]
    assert _learn(toy, champion, parted, accumulate=4) == []
    assert _same(small, parted)


def test_a_step_that_runs_out_of_memory_half_way_is_begun_again(toy, champion):
    halting, parted, calls = champion.network(), champion.network(), []

    def run_out(_weight):
        calls.append(None)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: out of memory")

    # In the backward pass of the second half of the first step: the first half's gradient is there by then.
    halting.head.bias.register_hook(run_out)
    said = _learn(toy, champion, halting, accumulate=2)
    assert said == ["a batch of 8 does not fit into the memory of cpu: halved to 4, 4 of them make a step"]
    _learn(toy, champion, parted, accumulate=4)
    assert _same(halting, parted)


def test_one_image_that_does_not_fit_is_an_error_that_names_the_sizes_and_the_remedy(toy, champion):
    with pytest.raises(LearningError, match="one image of 9 tokens does not fit.*a batch of 16.*--image-size"):
        _learn(toy, champion, _with_room_for(champion.network(), 0))


def test_an_error_that_has_nothing_to_do_with_memory_is_not_taken_for_it(toy, champion):
    network = champion.network()

    def fail(_module, _inputs):
        raise RuntimeError("a bug")

    network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="a bug"):
        _learn(toy, champion, network)


@pytest.mark.parametrize("parts", [0, 17])
def test_micro_batches_out_of_range_are_an_error_before_anything_is_learnt(toy, champion, parts):
    network = champion.network()
    with pytest.raises(LearningError, match=f"a step of {parts} micro-batches, must be 1 to the batch size 16"):
        _learn(toy, champion, network, accumulate=parts)
    assert _same(network, champion.network())


def test_a_batch_of_odd_size_can_be_learnt_image_by_image(toy, champion):
    # Half of 15 is 7, from each side: 14 images, asked for in 15 parts.
    network = champion.network()
    assert _learn(toy, champion, network, batch_size=15, accumulate=15) == []
    assert all(torch.isfinite(weight).all() for weight in network.trainable().values())
