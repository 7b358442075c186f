"""Backbones: how they are found, what tells their architecture, and what is refused."""

import json
import pickle
import socket
import struct
import threading
import time

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load, save

from continual.domain.digests import sha256_bytes
from continual.domain.errors import BackboneError
from continual.learning import backbones, build_network, resolve_backbone, weights_from_bytes
from continual.learning.backbone_weights import KNOWN_SHAPES

PUBLISHED = "vit_tiny_patch16_224"


def _file_of(header) -> bytes:
    """The front of a safetensors file: its header without the weights."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty hub cache, and a hub whose name can never be resolved (RFC 2606)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(backbones, "HUB_HOST", "hub.invalid")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", KNOWN_SHAPES.values())
def test_shapes_alone_tell_the_architecture_that_timm_builds_under_that_name(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    header = {key: {"dtype": "F32", "shape": list(w.shape)} for key, w in network.state_dict().items()}
    assert weights_from_bytes(_file_of(header)).name == name


def test_a_backbone_is_known_by_the_digest_of_its_file(toy):
    assert toy.weights.digest == sha256_bytes(toy.weights.data)
    assert toy.weights.name == "small_vision_transformer"
    assert str(toy.weights.digest) in repr(toy.weights)
    assert len(repr(toy.weights)) < 500


def test_a_built_network_holds_exactly_the_files_weights_frozen_and_in_eval_mode(toy):
    network = build_network(toy.weights)
    stored = load(toy.weights.data)
    assert set(network.state_dict()) == set(stored)
    assert all(torch.equal(weight, stored[name]) for name, weight in network.state_dict().items())
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not any(module.training for module in network.modules())


def test_half_precision_files_become_single_precision(toy):
    half = save({name: weight.half() for name, weight in load(toy.weights.data).items()})
    weights = backbones.BackboneWeights("half", sha256_bytes(half), half, toy.weights.arguments)
    assert all(weight.dtype == torch.float32 for weight in build_network(weights).parameters())


def test_a_file_is_found_by_its_path_and_its_name_can_be_given(toy, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(toy.weights.data)
    assert resolve_backbone(str(path)) == toy.weights
    assert resolve_backbone(str(path), PUBLISHED).name == PUBLISHED


@pytest.mark.parametrize("name", [PUBLISHED, "resnet18", "no_such_model"])
def test_the_wrong_architecture_is_an_error(toy, name):
    with pytest.raises(BackboneError, match=name):
        build_network(weights_from_bytes(toy.weights.data, name))


def test_arguments_that_build_nothing_are_an_error(toy):
    for arguments in ({"embed_dim": 50}, {"surprise": 1}):
        described = json.dumps({"name": "odd", "arguments": {**toy.weights.arguments, **arguments}})
        data = save(load(toy.weights.data), metadata={"continual_backbone": described})
        with pytest.raises(BackboneError, match="'odd'"):
            build_network(weights_from_bytes(data))


def test_a_missing_or_additional_weight_is_an_error(toy):
    stored = load(toy.weights.data)
    fewer = {name: weight for name, weight in stored.items() if name != "norm.weight"}
    for state in (fewer, {**stored, "surprise": torch.ones(1)}):
        weights = backbones.BackboneWeights("toy", "0" * 64, save(state), toy.weights.arguments)
        with pytest.raises(BackboneError, match=r"norm\.weight|surprise"):
            build_network(weights)


class _Touch:
    def __init__(self, path) -> None:
        self._path = path

    def __reduce__(self):
        return type(self._path).touch, (self._path,)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(_Touch(tmp_path / "ran")))
    with pytest.raises(BackboneError, match="never pickle"):
        resolve_backbone(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        bytes(8),
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(60),
        _file_of([]),
        _file_of({"patch_embed.proj.weight": {}}),
        _file_of({"patch_embed.proj.weight": {"shape": []}}),
        _file_of({"__metadata__": {"continual_backbone": "{"}}),
        _file_of({"__metadata__": {"continual_backbone": "[1]"}}),
        _file_of({"__metadata__": "text"}),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_bytes_that_are_not_safetensors_are_refused(data):
    with pytest.raises(BackboneError, match=f"file of {len(data)} bytes is not safetensors"):
        weights_from_bytes(data)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_a_file_cut_short_anywhere_is_refused(toy, share):
    with pytest.raises(BackboneError):
        build_network(weights_from_bytes(toy.weights.data[: int(len(toy.weights.data) * share)]))


def test_a_file_of_another_kind_of_network_asks_for_a_name(toy):
    with pytest.raises(BackboneError, match="not a timm vision transformer"):
        weights_from_bytes(save({"conv1.weight": torch.ones(3)}))
    with pytest.raises(BackboneError, match="width 48, depth 4 and patch 16; name it"):
        weights_from_bytes(save(load(toy.weights.data)))


@pytest.mark.parametrize("reference", ["Jane Doe/weights.safetensors", "/data/Jane Doe/weights", "/Jane Doe/a/"])
def test_a_missing_file_is_an_error_that_does_not_repeat_its_folders(reference):
    with pytest.raises(BackboneError, match="does not exist") as caught:
        resolve_backbone(reference)
    assert "Jane" not in str(caught.value)


def test_a_name_that_is_neither_a_file_nor_an_architecture_is_an_error():
    with pytest.raises(BackboneError, match="neither a file nor a timm architecture"):
        resolve_backbone("no_such_backbone")


@pytest.mark.parametrize("told", [True, False], ids=["told-offline", "untold"])
def test_a_published_name_without_a_network_is_an_error_within_two_seconds(offline, monkeypatch, told):
    if told:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.perf_counter()
    with pytest.raises(BackboneError, match="no network to fetch it"):
        resolve_backbone(PUBLISHED)
    assert time.perf_counter() - started < 2


def test_a_name_resolution_that_hangs_holds_up_neither_the_answer_nor_the_end_of_the_program(offline, monkeypatch):
    resolved = threading.Event()
    monkeypatch.setattr(socket, "create_connection", lambda *_args, **_named: resolved.wait(30) and 1 / 0)
    before = set(threading.enumerate())
    try:
        started = time.perf_counter()
        with pytest.raises(BackboneError, match="no network"):
            resolve_backbone(PUBLISHED)
        assert time.perf_counter() - started < 2
        waiting = set(threading.enumerate()) - before
        assert waiting
        assert all(thread.daemon for thread in waiting)
    finally:
        monkeypatch.setattr(threading, "excepthook", lambda _details: None)
        resolved.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(5)


def test_a_name_in_the_local_hub_cache_needs_no_network(offline, toy):
    repository = offline / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "model.safetensors").write_bytes(toy.weights.data)
    weights = resolve_backbone(PUBLISHED)
    assert (weights.name, weights.digest) == (PUBLISHED, toy.weights.digest)


def test_the_real_backbone_is_told_by_its_shapes_and_loads_strictly(real_weights, real_network):
    assert real_weights.name == "vit_small_patch14_dinov2"
    stored = load(real_weights.data)
    built = real_network.state_dict()
    assert set(built) == set(stored)
    assert all(torch.equal(built[name], stored[name].float()) for name in stored)
