"""LoRA added in place: where it runs, that it gives PEFT's own numbers bit for bit, and where PEFT's own layer runs."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from continual.domain.samples import Split
from continual.learning import (
    PEFT_METHODS,
    AdaptedNetwork,
    LoraShape,
    UpdateRequest,
    build_network,
    usual_alpha,
)
from continual.learning.lora_linear import InPlaceLoraLinear

PLACES = (3, 7, 24)
"""Images, tokens, input features."""


def _layer(**options):
    """A layer of 24 inputs and 40 outputs that carries LoRA with weights at random."""
    torch.manual_seed(5)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["0"], **options})
    config._register_custom_module({nn.Linear: InPlaceLoraLinear})
    model = get_peft_model(nn.Sequential(nn.Linear(24, 40)), config)
    layer = model.base_model.model[0]
    assert type(layer) is InPlaceLoraLinear
    for weight in model.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.1)
    return layer


def _as_peft_ships(layer):
    """The same layer and weights, PEFT's own forward."""
    twin = deepcopy(layer)
    twin.__class__ = Linear
    return twin


def _inputs(*, gradient=True):
    return torch.randn(PLACES, generator=torch.Generator().manual_seed(6)).requires_grad_(gradient)


def _learnt(layer, inputs):
    """Output, and gradients of the inputs and of every weight that learns, for one loss."""
    output = layer(inputs)
    (output.sin() * torch.arange(output.shape[-1])).sum().backward()
    gradients = {name: weight.grad for name, weight in layer.named_parameters() if weight.requires_grad}
    assert gradients
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
    return output, inputs.grad, gradients


def _never(*_args, **_kwargs):
    raise AssertionError("PEFT's own forward ran")


def _spied(monkeypatch):
    """Calls of PEFT's own forward, which still answers."""
    calls, real = [], Linear.forward

    def forward(self, x, *args, **kwargs):
        calls.append(x)
        return real(self, x, *args, **kwargs)

    monkeypatch.setattr(Linear, "forward", forward)
    return calls


def test_outputs_and_gradients_are_pefts_own_bit_for_bit(monkeypatch):
    ours = _layer()
    output, back, gradients = _learnt(_as_peft_ships(ours), _inputs())
    monkeypatch.setattr(Linear, "forward", _never)
    mine, my_back, my_gradients = _learnt(ours, _inputs())
    assert mine.shape == (3, 7, 40)
    assert torch.equal(mine, output)
    assert torch.equal(my_back, back)
    assert gradients.keys() == my_gradients.keys()
    assert all(torch.equal(my_gradients[name], gradients[name]) for name in gradients)


def test_a_scaling_that_is_no_power_of_two_differs_by_rounding_alone():
    ours = _layer(use_rslora=True, r=6)
    assert torch.allclose(ours(_inputs()), _as_peft_ships(ours)(_inputs()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 4, 24)])
def test_inputs_of_any_number_of_dimensions_keep_it(shape):
    ours = _layer()
    inputs = torch.randn(shape)
    assert torch.equal(ours(inputs), _as_peft_ships(ours)(inputs))


def test_inputs_without_gradient_and_inputs_that_lie_otherwise_in_memory_are_taken():
    ours = _layer()
    turned = torch.randn(24, 7).T
    with torch.inference_mode():
        assert torch.equal(ours(turned), _as_peft_ships(ours)(turned))
    assert torch.equal(ours(_inputs(gradient=False)), _as_peft_ships(ours)(_inputs()))


def test_the_inputs_are_left_as_they_are():
    inputs = _inputs(gradient=False)
    before = inputs.clone()
    _layer()(inputs)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.5}, {"lora_bias": True}, {"use_dora": True}])
def test_what_is_more_than_two_products_is_left_to_peft(monkeypatch, options):
    layer, calls = _layer(**options), _spied(monkeypatch)
    layer(_inputs())
    assert len(calls) == 1


def test_a_layer_that_is_switched_off_or_merged_is_left_to_peft(monkeypatch):
    layer, calls = _layer(), _spied(monkeypatch)
    on = layer(_inputs())
    layer.enable_adapters(enabled=False)
    assert torch.equal(layer(_inputs()), layer.base_layer(_inputs()))
    layer.enable_adapters(enabled=True)
    layer.merge()
    assert torch.allclose(layer(_inputs()), on, rtol=1e-5, atol=1e-6)
    assert len(calls) == 2


def test_several_adapters_at_once_are_left_to_peft(monkeypatch):
    layer, calls = _layer(), _spied(monkeypatch)
    layer.update_layer("second", 4, lora_alpha=8, config=LoraConfig(r=4, lora_alpha=8))
    layer.set_adapter(["default", "second"])
    layer(_inputs())
    assert len(calls) == 1


def test_an_adapter_that_the_layer_does_not_carry_adds_nothing():
    layer = _layer()
    layer._active_adapter = ["another"]
    assert torch.equal(layer(_inputs()), layer.base_layer(_inputs()))


def test_mixed_precision_and_other_precisions_are_left_to_peft(monkeypatch):
    layer, calls = _layer(), _spied(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(_inputs()).dtype == torch.bfloat16
    layer.lora_A.double()
    layer.lora_B.double()
    assert layer(_inputs()).dtype == torch.float32
    assert len(calls) == 2


@pytest.mark.parametrize("name", [name for name, method in PEFT_METHODS.items() if method.ranked])
def test_the_layer_is_in_use_for_lora_and_rslora(toy, name):
    network = AdaptedNetwork(build_network(toy.weights), LoraShape(4, usual_alpha(name, 4), 2, name), ("a", "b"))
    ours = [layer for layer in network.modules() if isinstance(layer, InPlaceLoraLinear)]
    assert bool(ours) is (name in {"lora", "rslora"})


def test_an_update_ends_with_the_weights_that_pefts_own_layers_give(toy, monkeypatch):
    request = UpdateRequest("naive", toy.samples["north", Split.TRAIN])
    ours = toy.learn(toy.fresh(), request).trainable()
    monkeypatch.setattr(InPlaceLoraLinear, "forward", Linear.forward)
    theirs = toy.learn(toy.fresh(), request).trainable()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
