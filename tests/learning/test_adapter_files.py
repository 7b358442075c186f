"""A version's folder: what is in it, who else can read it, and what is refused."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load, save

from continual.domain.errors import AdapterMismatchError
from continual.learning import (
    adapter_files,
    build_network,
    read_adapter,
    read_importance,
    weights_from_bytes,
    write_adapter,
)
from continual.learning.backbone_weights import BackboneWeights

CPU = torch.device("cpu")
WEIGHTS, HEAD = "adapter_model.safetensors", "head.safetensors"


def _changed(files, name, change):
    """The files with one tensor file changed in place by `change`."""
    tensors = {key: value.clone() for key, value in load(files[name]).items()}
    change(tensors)
    return {**files, name: save(tensors)}


def test_the_folder_holds_peft_files_head_importance_golden_outputs_record_and_card(champion):
    assert set(champion.files) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "head.safetensors",
        "importance.safetensors",
        "golden.safetensors",
        "record.json",
        "README.md",
    }


def test_every_file_is_safetensors_json_or_text_and_no_pickle(champion):
    for name, data in champion.files.items():
        if name.endswith(".safetensors"):
            assert all(isinstance(value, torch.Tensor) for value in load(data).values())
        else:
            text = data.decode()
            assert name == "README.md" or json.loads(text)


def test_reading_a_version_gives_its_weights_bit_for_bit(champion):
    first, second = champion.network(), champion.network()
    assert first.classes == ("dim", "bright")
    assert all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())
    assert first.head.weight.abs().max() > 0
    written = write_adapter(first, champion.importance, json.loads(champion.files["record.json"]))
    assert written == champion.files


def test_peft_itself_loads_the_folder_onto_the_timm_model(champion, toy, tmp_path):
    for name, data in champion.files.items():
        (tmp_path / name).write_bytes(data)
    model = PeftModel.from_pretrained(build_network(toy.weights), tmp_path)
    theirs = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    ours = {name: weight for name, weight in champion.network().peft.named_parameters() if "lora_" in name}
    assert set(theirs) == set(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert any(weight.abs().max() > 0 for name, weight in theirs.items() if "lora_B" in name)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = champion.network().vision.forward_features(images)
        assert torch.allclose(model.base_model.model.forward_features(images), expected, atol=1e-6)


def test_the_configuration_names_no_path_of_this_machine(champion, toy):
    configuration = json.loads(champion.files["adapter_config.json"])
    assert configuration["base_model_name_or_path"] == toy.weights.name
    assert configuration["inference_mode"] is True
    assert (configuration["r"], configuration["lora_alpha"]) == (toy.shape.rank, toy.shape.alpha)


@pytest.mark.parametrize("name", [WEIGHTS, HEAD])
def test_tampered_weights_do_not_reproduce_the_golden_outputs(champion, toy, name):
    def bend(tensors):
        for value in tensors.values():
            value.add_(0.05)

    with pytest.raises(AdapterMismatchError, match=r"golden outputs differ by"):
        read_adapter(toy.weights, _changed(champion.files, name, bend), CPU)


def test_an_adapter_that_silently_does_not_apply_is_refused(champion, toy):
    with pytest.raises(AdapterMismatchError, match="golden outputs differ"):
        read_adapter(toy.weights, _changed(champion.files, WEIGHTS, dict.clear), CPU)


def test_weights_that_are_not_numbers_are_refused(champion, toy):
    broken = _changed(champion.files, HEAD, lambda tensors: tensors["bias"].fill_(float("nan")))
    with pytest.raises(AdapterMismatchError, match="golden outputs differ by nan"):
        read_adapter(toy.weights, broken, CPU)


def test_weights_for_a_layer_that_the_backbone_has_not_are_refused(champion, toy):
    def add(tensors):
        name = next(each for each in tensors if "blocks.2." in each)
        tensors[name.replace("blocks.2.", "blocks.9.")] = tensors[name].clone()

    with pytest.raises(AdapterMismatchError, match="fit no layer"):
        read_adapter(toy.weights, _changed(champion.files, WEIGHTS, add), CPU)


@pytest.mark.parametrize("field", [("lora_rank", 8), ("classes", ["a", "b", "c"])])
def test_weights_of_another_shape_than_the_record_says_are_refused(champion, toy, field):
    record = json.loads(champion.files["record.json"])
    record["network"][field[0]] = field[1]
    with pytest.raises(AdapterMismatchError, match="do not fit"):
        read_adapter(toy.weights, {**champion.files, "record.json": json.dumps(record).encode()}, CPU)


@pytest.mark.parametrize("name", [WEIGHTS, HEAD])
def test_a_weights_file_cut_short_is_refused(champion, toy, name):
    with pytest.raises(AdapterMismatchError, match="restore"):
        read_adapter(toy.weights, {**champion.files, name: champion.files[name][:-9]}, CPU)


def test_another_backbone_is_refused_by_its_digest(champion, toy):
    other = save({name: value + 1 for name, value in load(toy.weights.data).items()})
    described = weights_from_bytes(other, "small_vision_transformer")
    weights = BackboneWeights(described.name, described.digest, described.data, toy.weights.arguments)
    with pytest.raises(AdapterMismatchError, match=f"backbone {toy.weights.digest[:12]}, not {weights.digest[:12]}"):
        read_adapter(weights, champion.files, CPU)


@pytest.mark.parametrize("name", [WEIGHTS, HEAD, "golden.safetensors", "record.json"])
def test_a_missing_file_is_named(champion, toy, name):
    with pytest.raises(AdapterMismatchError, match=name):
        read_adapter(toy.weights, {key: data for key, data in champion.files.items() if key != name}, CPU)


def test_importance_comes_back_as_it_was_measured_and_is_empty_without_its_file(champion):
    stored = read_importance(champion.files, CPU)
    assert set(stored) == set(champion.importance) == set(champion.network().trainable())
    assert all(torch.equal(stored[name], value) for name, value in champion.importance.items())
    assert read_importance({}, CPU) == {}


def test_a_version_without_importance_can_be_stored(champion, toy):
    files = write_adapter(champion.network(), {}, json.loads(champion.files["record.json"]))
    assert read_importance(files, CPU) == {}
    assert read_adapter(toy.weights, files, CPU).classes == ("dim", "bright")


def test_the_model_card_tells_the_records_figures(champion):
    card, record = champion.files["README.md"].decode(), json.loads(champion.files["record.json"])
    network, scores = record["network"], record["scores"]["north"]
    error, floor = scores["calibration_error"], scores["calibration_floor"]
    assert f"| north | {scores['balanced_accuracy']:.3f} | {error:.3f} | {floor:.3f} | 32 |" in card
    assert len({line.count("|") for line in card.splitlines() if line.startswith("|")}) == 1
    assert f"LoRA rank {network['lora_rank']} in the last {network['lora_blocks']} blocks" in card
    assert network["backbone_digest"] in card
    assert f"{network['trainable_parameters']} parameters, {100 * network['trainable_share']:.2f} %" in card
    assert "Classes: dim, bright" in card
    assert "Learnt, in this order: north" in card
    assert "Strategy: naive; parent version: none" in card
    assert "Gate: accepted" in card
    assert card.startswith("---\nlibrary_name: peft\n")


def test_the_record_counts_what_was_trained(champion):
    network = champion.network()
    record = json.loads(champion.files["record.json"])["network"]
    assert record["trainable_parameters"] == sum(value.numel() for value in network.trainable().values())
    assert record["trainable_share"] == network.trainable_share()


def test_golden_outputs_are_written_and_proved_with_32_bit_convolutions(champion, toy, monkeypatch):
    seen, real, usual = [], adapter_files.golden_scores, torch.backends.cudnn.allow_tf32

    def asked(*given):
        seen.append(torch.backends.cudnn.allow_tf32)
        return real(*given)

    monkeypatch.setattr(adapter_files, "golden_scores", asked)
    network = champion.network()
    write_adapter(network, {}, json.loads(champion.files["record.json"]))
    assert seen == [False, False]
    assert torch.backends.cudnn.allow_tf32 is usual is True
