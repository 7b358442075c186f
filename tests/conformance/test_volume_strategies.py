"""What every strategy promises of volumes, of classes (a 3D ResNet) and of masks (UNETR), on networks of a few weights.

The stream: north, whose bodies are brighter than their ground, then south, whose bodies are darker and whose slices are
twice as thick. A body is a cube or a plate; masks tell where it is.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from peft import PeftModel

from continual.domain.errors import AdapterMismatchError, LearningError
from continual.domain.samples import Sample, Split
from continual.learning import (
    PEFT_METHODS,
    STRATEGIES,
    WHOLE_BACKBONE,
    ActivationCache,
    ActivationKey,
    BackboneWeights,
    BaseModel,
    BaseTraining,
    Cache,
    CachePlace,
    LoraShape,
    PatchCache,
    TrainingOptions,
    UpdateRequest,
    Volume,
    VolumeGrid,
    build_backbone,
    first_tuned_block,
    importance_of,
    learn,
    network_record,
    probabilities,
    read_adapter,
    read_importance,
    site_outcomes,
    train_volume_classifier,
    train_volume_segmenter,
    usual_alpha,
    volume_network,
    weights_from_bytes,
    write_adapter,
)
from continual.learning.strategies import StrategyContext
from continual.learning.views import GAINS

NAMES = list(STRATEGIES)
OF_MASKS = ("naive", "replay_ewc", "replay_lwf", "der++", "joint")
EVERY = [("classes", name) for name in NAMES] + [("masks", name) for name in OF_MASKS]
GRID = VolumeGrid((1.0, 1.0, 1.0), (16, 16, 16))
SPACING = {"north": (1.0, 1.0, 1.0), "south": (1.0, 1.0, 2.0)}
SHAPES = {"cube": (6, 6, 6), "plate": (10, 10, 2)}
NORMED = {"conv1_t_size": 3, "widen_factor": 0.125, "norm": ["group", {"num_groups": 4}]}
BATCH_NORMED = {"conv1_t_size": 3, "widen_factor": 0.125, "norm": "batch"}
SMALL_UNETR = {"feature_size": 4, "hidden_size": 16, "mlp_dim": 32, "num_heads": 2}
CPU = torch.device("cpu")


def _scene(site, kind, random):
    """A body in a ground of noise, on the site's own grid, and where it is."""
    inside = np.zeros((16, 16, 16), dtype=np.uint8)
    corner = [int(random.integers(1, 16 - side)) for side in SHAPES[kind]]
    inside[tuple(slice(first, first + side) for first, side in zip(corner, SHAPES[kind], strict=True))] = 1
    values = random.normal(scale=0.2, size=inside.shape) + (3.0 if site == "north" else -3.0) * inside
    if site == "south":
        values, inside = values.reshape(16, 16, 8, 2).mean(axis=3), inside[:, :, ::2]
    return Volume(values.astype(np.float32), SPACING[site]), np.ascontiguousarray(inside)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A frozen base model, two sites' volumes with labels and masks, and a filled cache."""

    weights: BackboneWeights
    shape: LoraShape
    classes: tuple[str, ...]
    cache: Cache
    volumes: dict
    masks: dict
    samples: dict
    options: TrainingOptions

    def fresh(self):
        return volume_network(self.weights, self.shape, self.classes, GRID)

    def learn(self, network, request, **changed):
        learn(network, self.cache, request, replace(self.options, **changed), lambda _n: None)
        return network

    def score(self, network, site):
        return site_outcomes(network, self.cache, site, self.samples[site, Split.TEST], lambda _n: None)[1].value

    def answers(self, network):
        digests = [sample.digest for site in SPACING for sample in self.samples[site, Split.TEST]]
        return probabilities(network, self.cache, digests, lambda _n: None)

    def record(self, network):
        return {"network": network_record(network, self.weights, 0), "gate": {"accepted": True}}

    def request(self, name):
        """Learn south, with everything that the past has to offer."""
        north, south = (self.samples[site, Split.TRAIN] for site in SPACING)
        return UpdateRequest(name, south, north[:8], north, self.importance(), self.classes)

    def importance(self):
        return read_importance(CHAMPIONS[self.weights.digest], CPU)

    def champion(self):
        return read_adapter(self.weights, CHAMPIONS[self.weights.digest], CPU)


CHAMPIONS: dict[str, dict[str, bytes]] = {}


@pytest.fixture(scope="session")
def scenes():
    random = np.random.default_rng(3)
    volumes, masks, samples = {}, {}, {}
    for site, spacing in SPACING.items():
        for split, count in ((Split.TRAIN, 16), (Split.TEST, 8)):
            group = []
            for number in range(count):
                label = ("cube", "plate")[number % 2]
                volume, mask = _scene(site, label, random)
                digest, address = (hashlib.sha256(values.tobytes()).hexdigest() for values in (volume.values, mask))
                volumes[digest], masks[address] = volume, mask
                group.append(
                    Sample(
                        digest,
                        site,
                        f"{split}{number}",
                        label,
                        split,
                        digest,
                        1,
                        mask=address,
                        spacing_mm=spacing,
                    )
                )
            samples[site, split] = tuple(group)
    return volumes, masks, samples


def _bench(scenes, weights, shape, classes, options, folder):
    volumes, masks, samples = scenes
    network = build_backbone(weights)
    key = ActivationKey(weights.digest, first_tuned_block(network, shape), 0, GRID)
    if len(classes) == 2:
        cache = ActivationCache(folder, key, network, CPU)
    else:
        cache = PatchCache(CachePlace(folder), key, network, CPU, lambda sample: masks[str(sample.mask)])
    everyone = [sample for group in samples.values() for sample in group]
    cache.fill(everyone, options.views, lambda sample: volumes[sample.digest], lambda _n: None)
    bench = Bench(weights, shape, classes, cache, volumes, masks, samples, options)
    champion = bench.learn(bench.fresh(), UpdateRequest("naive", samples["north", Split.TRAIN]))
    importance = importance_of(champion, cache, samples["north", Split.TRAIN][:4], lambda _n: None)
    CHAMPIONS[weights.digest] = write_adapter(champion, importance, bench.record(champion))
    return bench


@pytest.fixture(scope="session")
def benches(scenes, tmp_path_factory):
    torch.set_num_threads(1)
    volumes, masks, samples = scenes
    north = samples["north", Split.TRAIN]
    seen = [volumes[sample.digest] for sample in north]
    targets = [("cube", "plate").index(sample.label) for sample in north]
    resnet = BaseModel("resnet10", GRID, NORMED)
    unetr = BaseModel("unetr", GRID, SMALL_UNETR)
    pairs = [(volume, masks[sample.mask]) for volume, sample in zip(seen, north, strict=True)]
    classifier = train_volume_classifier(resnet, seen, targets, BaseTraining(25, 1), lambda _n: None)
    segmenter = train_volume_segmenter(unetr, pairs, 1, BaseTraining(60, 1), lambda _n: None)
    options = TrainingOptions(
        steps=25, batch_size=8, lora_rate=5e-3, head_rate=1e-2, views=2, regularisation=10.0, seed=1
    )
    made = {}
    for kind, data, blocks, classes in (
        ("classes", classifier, 2, ("cube", "plate")),
        ("masks", segmenter, 6, ("body",)),
    ):
        shape = LoraShape(rank=4, alpha=8, blocks=blocks)
        learning = replace(options, batch_size=8 if kind == "classes" else 4)
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = _bench(scenes, weights_from_bytes(data), shape, classes, learning, folder)
    return made


@pytest.fixture(scope="session")
def update_of(benches):
    """Networks that learnt south from the champion, each made once."""
    made = {}

    def update(kind, name):
        if (kind, name) not in made:
            bench = benches[kind]
            made[kind, name] = bench.learn(bench.champion(), bench.request(name))
        return made[kind, name]

    return update


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_strategy_learns_the_new_sites_volumes_from_the_champion(benches, update_of, kind, name):
    bench = benches[kind]
    assert bench.score(bench.champion(), "north") > 0.7
    before, after = (bench.score(network, "south") for network in (bench.champion(), update_of(kind, name)))
    assert before < 0.6
    assert after > before + 0.1


def test_a_strategy_that_replays_forgets_masks_less_than_naive(benches, update_of):
    kept, naive = (benches["masks"].score(update_of("masks", name), "north") for name in ("replay_lwf", "naive"))
    assert kept > naive + 0.1


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].replays])
def test_a_strategy_that_replays_still_tells_the_old_sites_classes(benches, update_of, name):
    assert benches["classes"].score(update_of("classes", name), "north") > 0.7


@pytest.mark.parametrize(("kind", "name"), [*EVERY[::3], ("masks", "der++")])
def test_a_strategy_is_bit_for_bit_deterministic_under_its_seed(benches, kind, name):
    bench = benches[kind]
    states = []
    for noise in (1, 99):
        torch.manual_seed(noise)  # What the caller drew before must not matter.
        states.append(bench.learn(bench.champion(), bench.request(name), steps=2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_no_frozen_weight_or_buffer_ever_changes_and_every_tuned_one_does(benches, update_of, kind, name):
    start, network = benches[kind].champion(), update_of(kind, name)
    before, after = start.state_dict(), network.state_dict()
    depths = network.depths()
    opening = STRATEGIES[name].tuning.opening
    tuned = {weight for weight, depth in depths.items() if opening(depth, max(depths.values())) < 1}
    assert {key for key in after if not torch.equal(before[key], after[key])} == tuned


@pytest.mark.parametrize(("kind", "name"), [("classes", "replay_ewc"), ("masks", "replay_lwf")])
def test_a_learnt_version_survives_being_written_and_read_exactly(benches, update_of, kind, name):
    bench, network = benches[kind], update_of(kind, name)
    read = read_adapter(bench.weights, write_adapter(network, {}, bench.record(network)), CPU)
    assert np.array_equal(bench.answers(network), bench.answers(read))


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_the_adapters_files_load_with_peft_onto_monais_own_network(benches, update_of, kind, tmp_path):
    bench, network = benches[kind], update_of(kind, "naive")
    for name, data in write_adapter(network, {}, bench.record(network)).items():
        (tmp_path / name).write_bytes(data)
    loaded = PeftModel.from_pretrained(build_backbone(bench.weights), tmp_path).eval()
    inside = loaded.base_model.model.state_dict()
    assert inside.keys() == network.inner.state_dict().keys()
    assert all(torch.equal(inside[key], value) for key, value in network.inner.state_dict().items())


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_a_version_whose_weights_do_not_apply_is_refused(benches, kind):
    bench = benches[kind]
    files = dict(CHAMPIONS[bench.weights.digest])
    untrained = bench.fresh()
    files["adapter_model.safetensors"] = write_adapter(untrained, {}, bench.record(untrained))[
        "adapter_model.safetensors"
    ]
    with pytest.raises(AdapterMismatchError, match="golden outputs differ"):
        read_adapter(bench.weights, files, CPU)


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_a_regulariser_adds_nothing_at_the_champion_and_something_away_from_it(benches, penalty, kind):
    network, importance = benches[kind].champion(), benches[kind].importance()
    assert set(importance) == set(network.trainable())
    anchor = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    context = StrategyContext(None, importance, anchor, batch_size=8, regularisation=100.0)
    assert penalty("ewc", context, network) == 0
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(0.01)
    assert penalty("ewc", context, network) > 0


@pytest.mark.parametrize("kind", ["classes", "masks"])
@pytest.mark.parametrize("method", list(PEFT_METHODS))
def test_a_peft_method_adapts_convolutions_or_says_that_it_cannot(benches, kind, method):
    bench = replace(benches[kind], shape=replace(benches[kind].shape, method=method, alpha=usual_alpha(method, 4)))
    if not PEFT_METHODS[method].convolutional:
        with pytest.raises(LearningError, match="choose one of lora, dora, rslora"):
            bench.fresh()
        return
    network = bench.learn(bench.fresh(), UpdateRequest("naive", bench.samples["north", Split.TRAIN]), steps=2)
    read = read_adapter(bench.weights, write_adapter(network, {}, bench.record(network)), CPU)
    assert read.shape == bench.shape
    assert np.array_equal(bench.answers(network), bench.answers(read))


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_the_whole_backbone_can_learn_volumes_as_a_reference(benches, scenes, tmp_path, kind):
    weights = benches[kind].weights
    bench = benches[kind]
    shape = LoraShape(method=WHOLE_BACKBONE)
    network = build_backbone(weights)
    key = ActivationKey(weights.digest, first_tuned_block(network, shape), 0, GRID)
    cache = bench.cache
    if kind == "classes":
        cache = ActivationCache(tmp_path, key, network, CPU)
        north = bench.samples["north", Split.TRAIN]
        cache.fill(north, 2, lambda sample: bench.volumes[sample.digest], lambda _n: None)
    whole = replace(bench, shape=shape, cache=cache)
    before = {name: weight.detach().clone() for name, weight in whole.fresh().trainable().items()}
    learnt = whole.learn(whole.fresh(), UpdateRequest("full", bench.samples["north", Split.TRAIN]), steps=2)
    first = "backbone.conv1.weight" if kind == "classes" else "backbone.encoder1.layer.conv1.conv.weight"
    assert not torch.equal(learnt.trainable()[first], before[first])
    assert learnt.depths()[first] == max(learnt.depths().values())


def test_statistics_of_batch_norm_stay_as_the_base_model_has_them(benches, scenes, tmp_path):
    volumes, _, samples = scenes
    north = samples["north", Split.TRAIN]
    seen = [volumes[sample.digest] for sample in north]
    model = BaseModel("resnet10", GRID, BATCH_NORMED)
    data = train_volume_classifier(
        model, seen, [number % 2 for number in range(16)], BaseTraining(2, 1), lambda _n: None
    )
    bench = benches["classes"]
    normed = _bench(
        scenes, weights_from_bytes(data), bench.shape, bench.classes, replace(bench.options, steps=3), tmp_path
    )
    network, base = normed.champion(), build_backbone(normed.weights)
    statistics = {name: value for name, value in base.named_buffers() if "running" in name}
    assert statistics
    inside = {name.replace(".base_layer", ""): value for name, value in network.inner.named_buffers()}
    assert all(torch.equal(inside[name], value) for name, value in statistics.items())


def test_upright_patches_keep_left_and_right_of_volume_and_mask(scenes, benches, tmp_path):
    volumes, masks, samples = scenes
    turned, (sample, *_) = benches["masks"].cache, samples["north", Split.TRAIN]
    key = replace(turned.key, upright=True)
    place = CachePlace(tmp_path)
    upright = PatchCache(place, key, build_backbone(benches["masks"].weights), CPU, lambda one: masks[str(one.mask)])
    upright.fill([sample], 4, lambda one: volumes[one.digest], lambda _n: None)
    for variant in range(4):
        view, plain = upright.view(sample.digest, 0, variant), upright.view(sample.digest, 0, 0)
        assert np.array_equal(upright.mask(sample, view), turned.mask(sample, plain))
        (shown,), (as_it_is,) = upright.inputs(sample.digest, view), turned.inputs(sample.digest, plain)
        assert torch.allclose(shown, as_it_is * GAINS[variant])
    mirror = turned.view(sample.digest, 0, 1)
    assert np.array_equal(turned.mask(sample, mirror), turned.mask(sample, 0)[::-1])
