"""What every PEFT method promises, run over the dict: a new one is tested by being listed.

The stream is that of the strategies' suite: north, then south, whose colours stand the other way round.
"""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from continual.domain.errors import LearningError
from continual.domain.samples import Split
from continual.learning import (
    PEFT_METHODS,
    LoraShape,
    UpdateRequest,
    WeightLine,
    build_network,
    importance_of,
    peft_configuration,
    probabilities,
    read_adapter,
    read_importance,
    usual_alpha,
    write_adapter,
)
from continual.learning.backbones import frozen_features
from continual.learning.network import embed_prefix

NAMES = list(PEFT_METHODS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench_of(toy):
    """The toy bench, its adapters tuned by a method."""

    def bench(name):
        return replace(toy, shape=LoraShape(4, usual_alpha(name, 4), 2, name))

    return bench


@pytest.fixture(scope="module")
def files_of(bench_of):
    """A version's folder after north, by method; each is learnt once."""
    made = {}

    def files(name):
        if name not in made:
            bench = bench_of(name)
            north = bench.samples["north", Split.TRAIN]
            network = bench.learn(bench.fresh(), UpdateRequest("naive", north))
            importance = importance_of(network, bench.cache, north[:8], lambda _n: None)
            made[name] = network, write_adapter(network, importance, bench.record(network))
        return made[name]

    return files


def _images(seed=2):
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def _shaken(network):
    """Every trainable weight moved: an adapter that does something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(torch.randn_like(weight) * 0.1)
    return network


def _scores(network, images):
    with torch.no_grad():
        return network(embed_prefix(network.vision, images, network.split))


def _own(network):
    """Names of the method's own weights."""
    return {name for name in network.trainable() if not name.startswith("head.")}


def _base(network):
    """The frozen backbone's weights and buffers by the names that they had before the method was put in."""
    inside = {name.replace(".base_layer.", "."): value for name, value in network.vision.state_dict().items()}
    return {name: inside[name] for name in inside if name in _BASE_NAMES}


_BASE_NAMES: set[str] = set()


@pytest.fixture(scope="module", autouse=True)
def _base_names(toy):
    _BASE_NAMES.update(build_network(toy.weights).state_dict())


def _answers(bench, network):
    digests = [sample.digest for site in ("north", "south") for sample in bench.samples[site, Split.TEST]]
    return probabilities(network, bench.cache, digests, lambda _n: None)


def _south(bench, strategy, network):
    """What the strategy asks for to learn south from a network that knows north."""
    north, south = bench.samples["north", Split.TRAIN], bench.samples["south", Split.TRAIN]
    importance = importance_of(network, bench.cache, north[:8], lambda _n: None)
    return UpdateRequest(strategy, south, north[:16], (), importance, network.classes)


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_adapter_is_the_identity(bench_of, toy, name):
    network, frozen = bench_of(name).fresh(), build_network(toy.weights)
    tokens = embed_prefix(network.vision, _images(), network.split)
    assert torch.equal(network(tokens), torch.zeros(3, 2))
    with torch.no_grad():
        expected = frozen_features(frozen, frozen.forward_features(_images()))
        assert torch.allclose(network.features(tokens), expected, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_of_its_own_weights_and_the_head_and_no_other(bench_of, name):
    network = _shaken(bench_of(name).fresh())
    tuned = [module for module in network.vision.modules() if isinstance(module, BaseTunerLayer)]
    frozen = {id(weight) for module in tuned for weight in module.base_layer.parameters()}
    assert _own(network)
    assert not frozen & {id(weight) for weight in network.trainable().values()}
    assert not {key.removeprefix("peft.base_model.model.") for key in network.trainable()} & _BASE_NAMES
    tokens = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(1))
    network(tokens).square().sum().backward()
    reached = {key for key, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert reached == set(network.trainable())


@pytest.mark.parametrize("name", NAMES)
def test_learning_leaves_every_frozen_weight_bit_for_bit_and_moves_every_own_one(bench_of, files_of, toy, name):
    start, learnt = bench_of(name).fresh(), files_of(name)[0]
    released, frozen = build_network(toy.weights).state_dict(), _base(learnt)
    assert set(frozen) == set(released)
    assert all(torch.equal(frozen[key], released[key]) for key in released)
    before, after = start.state_dict(), learnt.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == set(learnt.trainable())


@pytest.mark.parametrize("name", NAMES)
def test_a_second_adapter_on_the_same_backbone_never_moves_the_first(bench_of, files_of, name):
    network = deepcopy(files_of(name)[0])
    alone = _scores(network, _images())
    network.peft.add_adapter("second", peft_configuration(build_network(bench_of(name).weights), network.shape))
    network.peft.set_adapter("second")
    with torch.no_grad():
        for key, weight in network.peft.named_parameters():
            if ".second" in key:
                weight.add_(0.2)
    assert not torch.allclose(_scores(network, _images()), alone, atol=1e-4)
    network.peft.set_adapter("default")
    assert torch.equal(_scores(network, _images()), alone)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_site_and_the_same_again_under_the_same_seed(bench_of, files_of, name):
    bench, learnt = bench_of(name), files_of(name)[0]
    assert bench.score(learnt, "north").balanced_accuracy > 0.9
    torch.manual_seed(99)  # What the caller drew before must not matter.
    again = bench.learn(bench.fresh(), UpdateRequest("naive", bench.samples["north", Split.TRAIN])).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in learnt.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_network_learns_what_the_original_would(bench_of, name):
    """The benchmark starts every strategy from a copy of one release."""
    bench = bench_of(name)
    network = bench.fresh()
    request = UpdateRequest("naive", bench.samples["north", Split.TRAIN])
    copied = bench.learn(deepcopy(network), request, steps=4).state_dict()
    learnt = bench.learn(network, request, steps=4).state_dict()
    assert all(torch.equal(value, copied[key]) for key, value in learnt.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_adapter_survives_being_written_and_read_exactly(bench_of, files_of, name):
    bench, (network, files) = bench_of(name), files_of(name)
    read = read_adapter(bench.weights, files, CPU)
    assert read.shape == network.shape
    assert set(read.trainable()) == set(network.trainable())
    assert np.array_equal(_answers(bench, read), _answers(bench, network))
    written = write_adapter(read, read_importance(files, CPU), json.loads(files["record.json"]))
    assert written["adapter_model.safetensors"] == files["adapter_model.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_peft_itself_reads_the_folder_onto_the_backbone(bench_of, files_of, tmp_path, name):
    network, files = files_of(name)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / file).write_bytes(files[file])
    model = PeftModel.from_pretrained(build_network(bench_of(name).weights), tmp_path)
    with torch.no_grad():
        found, expected = (some.forward_features(_images()) for some in (model.base_model.model, network.vision))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_and_the_record_name_the_method(files_of, name):
    network, files = files_of(name)
    record, card = json.loads(files["record.json"])["network"], files["README.md"].decode()
    assert record["peft_method"] == name
    assert f"\n{PEFT_METHODS[name].title}" in card
    assert ("rank 4" in card) == PEFT_METHODS[name].ranked
    assert 0 < record["trainable_share"] < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_the_depth_of_every_own_weight_is_that_of_its_block(bench_of, name):
    network = bench_of(name).fresh()
    depths = {key: depth for key, depth in network.depths().items() if key in _own(network)}
    assert set(depths.values()) == {1, 2}
    assert all(f"blocks.{4 - depth}." in key for key, depth in depths.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_line_from_champion_to_candidate_has_exact_ends_and_moves_in_between(bench_of, files_of, name):
    bench = bench_of(name)
    network = read_adapter(bench.weights, files_of(name)[1], CPU)
    champion, line = _scores(network, _images()), WeightLine(network)
    bench.learn(network, _south(bench, "naive", network), steps=8)
    learnt = _scores(network, _images())
    line.end_here()
    line.go(0.0)
    assert torch.equal(_scores(network, _images()), champion)
    line.go(0.5)
    halfway = _scores(network, _images())
    assert not torch.equal(halfway, champion)
    assert (halfway - champion).norm() < (learnt - champion).norm()
    line.go(1.0)
    assert torch.equal(_scores(network, _images()), learnt)


@pytest.mark.parametrize("name", NAMES)
def test_importance_is_the_mean_of_squared_gradients_of_single_samples(bench_of, files_of, name):
    bench, network = bench_of(name), files_of(name)[0]
    samples = bench.samples["south", Split.TRAIN][:2]
    together, first, second = (
        importance_of(network, bench.cache, some, lambda _n: None) for some in (samples, samples[:1], samples[1:])
    )
    assert set(together) == set(network.trainable())
    for key, value in together.items():
        assert torch.allclose(value, (first[key] + second[key]) / 2)
        assert (value > 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_weight_consolidation_holds_the_weights_nearer_to_the_champion(bench_of, files_of, name):
    bench = bench_of(name)

    def moved(strength):
        network = read_adapter(bench.weights, files_of(name)[1], CPU)
        importance = importance_of(network, bench.cache, bench.samples["north", Split.TRAIN][:8], lambda _n: None)
        before = {key: weight.detach().clone() for key, weight in network.trainable().items()}
        bench.learn(network, _south(bench, "ewc", network), steps=12, regularisation=strength)
        away = {key: (weight.detach() - before[key]).square() for key, weight in network.trainable().items()}
        return sum(float((importance[key] * away[key]).sum()) for key in _own(network))

    free = moved(0.0)
    # Methods differ by orders of magnitude in what they weigh: this penalty would cost every one of them 5 nats.
    assert moved(10 / free) < 0.7 * free


@pytest.mark.parametrize("name", NAMES)
def test_a_linear_probe_leaves_its_weights_bit_for_bit(bench_of, files_of, name):
    bench = bench_of(name)
    network = read_adapter(bench.weights, files_of(name)[1], CPU)
    before = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    bench.learn(network, _south(bench, "linear_probe", network), steps=4)
    changed = {key for key, weight in network.trainable().items() if not torch.equal(weight, before[key])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("rank", [2, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_larger_rank_tunes_more_weights_exactly_where_the_method_has_a_rank(toy, bench_of, name, rank):
    def tuned(size):
        shape = LoraShape(size, usual_alpha(name, size), 2, name)
        return sum(weight.numel() for weight in replace(toy, shape=shape).fresh().trainable().values())

    assert (tuned(2 * rank) > tuned(rank)) == PEFT_METHODS[name].ranked


def _layers(network):
    return [module for module in network.vision.modules() if isinstance(module, BaseTunerLayer)]


def test_loras_step_keeps_its_size_over_ranks_and_rsloras_follows_the_root(toy):
    for name, expected in (("lora", (2.0, 2.0)), ("dora", (2.0, 2.0)), ("rslora", (8.0, 4.0))):
        for rank, scale in zip((4, 16), expected, strict=True):
            network = replace(toy, shape=LoraShape(rank, usual_alpha(name, rank), 2, name)).fresh()
            assert {layer.scaling["default"] for layer in _layers(network)} == {scale}


def test_what_orthogonal_learns_writes_only_where_the_frozen_weight_hardly_does(files_of):
    learnt, usual = files_of("orthogonal")[0], files_of("lora")[0]

    def into_the_rest(layer):
        """Share of the update that lies in output directions other than the frozen weight's 4 least ones."""
        left = torch.linalg.svd(layer.base_layer.weight, full_matrices=False)[0][:, :-4]
        update = layer.get_delta_weight("default").detach()
        return float((left.T @ update).norm() / update.norm())

    assert max(into_the_rest(layer) for layer in _layers(learnt)) < 1e-5
    assert min(into_the_rest(layer) for layer in _layers(usual)) > 0.1


def test_what_oft_learns_is_a_rotation(files_of):
    for layer in _layers(files_of("oft")[0]):
        turned = layer.get_delta_weight("default")
        assert torch.allclose(turned @ turned.T, torch.eye(len(turned)), atol=1e-5)
        assert not torch.allclose(turned, torch.eye(len(turned)), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (LoraShape(4, 8, 2, "pissa"), "no PEFT method 'pissa'; choose one of lora, dora, rslora, oft, ia3, orthogonal"),
        (LoraShape(5, 8, 2, "oft"), "blocks of 5 inputs; choose a rank above 1 that divides 48, .* take 48, 192"),
        (LoraShape(1, 8, 2, "oft"), "blocks of 1 inputs"),
        (LoraShape(48, 8, 2, "orthogonal"), "rank 48 leaves no direction .* 48 inputs untouched; choose 1 to 47"),
        (LoraShape(0, 8, 2, "lora"), "the rank is 0; choose 1 or more"),
    ],
)
def test_a_shape_that_a_method_cannot_have_is_an_error_with_the_remedy(toy, shape, reason):
    with pytest.raises(LearningError, match=reason):
        peft_configuration(build_network(toy.weights), shape)
