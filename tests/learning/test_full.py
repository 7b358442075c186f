"""Full fine-tuning: the whole backbone learns, from pixels on, and what comes of it is never a version."""

from dataclasses import replace

import pytest
import torch

from continual.domain.errors import AdapterMismatchError, LearningError, StreamError
from continual.domain.samples import Split
from continual.learning import (
    REFERENCES,
    STRATEGIES,
    WHOLE_BACKBONE,
    ActivationCache,
    ActivationKey,
    Checkpoints,
    LoraShape,
    UpdateRequest,
    build_network,
    first_tuned_block,
    forget_activations,
    strategy_named,
    update_strategy,
)
from continual.learning.backbones import frozen_features
from continual.learning.loop import LoopOrder, training_loop
from continual.learning.network import PIXELS, embed_prefix
from continual.learning.strategies.full import BACKBONE_PACE, FULL
from continual.learning.training_state import StateKeeper
from continual.learning.views import standardise, view_of

SHAPE = LoraShape(method=WHOLE_BACKBONE)


@pytest.fixture
def whole(toy, tmp_path):
    """The toy bench for whole backbones: its cache holds pixels."""
    network = build_network(toy.weights)
    key = ActivationKey(toy.weights.digest, first_tuned_block(network, SHAPE), toy.cache.key.image_size)
    cache = ActivationCache(tmp_path, key, network, torch.device("cpu"))
    bench = replace(toy, shape=SHAPE, cache=cache, options=replace(toy.options, lora_rate=2e-2, steps=30))
    cache.fill([s for group in toy.samples.values() for s in group], bench.options.views, bench.pixels, lambda _n: None)
    return bench


def test_every_weight_of_the_backbone_and_of_the_head_is_trainable_and_nothing_is_added(whole):
    network, released = whole.fresh(), dict(build_network(whole.weights).named_parameters())
    assert set(network.trainable()) == {f"backbone.{name}" for name in released} | {"head.weight", "head.bias"}
    network.train()
    assert not any(module.training for module in network.vision.modules())


def test_an_untrained_one_says_nothing_and_sees_what_the_released_backbone_sees(whole):
    network, released = whole.fresh(), build_network(whole.weights)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    inputs = embed_prefix(network.vision, images, network.split)
    assert torch.equal(inputs, images)
    assert torch.equal(network(inputs), torch.zeros(3, 2))
    with torch.no_grad():
        assert torch.equal(network.features(inputs), frozen_features(released, released.forward_features(images)))


def test_its_cache_holds_pixels_with_the_same_frozen_features_and_forgets_them_like_any_other(whole, toy, tmp_path):
    sample = whole.samples["north", Split.TEST][0]
    image = standardise(view_of(whole.pixels(sample), 0), 64)
    assert torch.equal(torch.from_numpy(whole.cache.tokens(sample.digest, 0)), image.half())
    same = [bench.cache.features([sample.digest]) for bench in (whole, toy)]
    assert torch.allclose(*map(torch.from_numpy, same), atol=1e-5)
    folder = whole.cache.key.folder()
    assert folder == f"{toy.weights.digest[:16]}-pixels-s64"
    assert forget_activations(tmp_path, [sample.digest]) == 3
    # The cache that was asked for the image computes it again; one that was not has nothing of it.
    unasked = ActivationCache(tmp_path, whole.cache.key, build_network(whole.weights), torch.device("cpu"))
    with pytest.raises(FileNotFoundError):
        unasked.tokens(sample.digest, 0)


def test_it_learns_a_site_by_moving_every_weight_and_does_so_again_under_its_seed(whole):
    request = UpdateRequest("full", whole.samples["north", Split.TRAIN])
    start, learnt = whole.fresh().state_dict(), whole.learn(whole.fresh(), request)
    assert whole.score(learnt, "north").balanced_accuracy > 0.9
    after = learnt.state_dict()
    still = {name for name in after if torch.equal(start[name], after[name])}
    assert still == set()
    torch.manual_seed(99)
    again = whole.learn(whole.fresh(), request).state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_the_backbone_learns_twenty_times_more_slowly_than_an_adapter_would(whole):
    network = whole.fresh()
    keeper = StateKeeper(Checkpoints(), "")
    loop = training_loop(network, LoopOrder(whole.options, FULL.tuning, False, 0.0, lambda _n: None, keeper), [])
    rates = {id(weight): group["max_lr"] for group in loop.optimizer.param_groups for weight in group["params"]}
    assert len(rates) == len(network.trainable())
    for name, weight in network.trainable().items():
        usual = whole.options.head_rate if name.startswith("head.") else BACKBONE_PACE * whole.options.lora_rate
        assert rates[id(weight)] == pytest.approx(usual)


def test_depths_put_the_last_norm_at_the_top_and_the_embedding_at_the_bottom(whole):
    depths = whole.fresh().depths()
    assert {name for name, depth in depths.items() if depth == 0} == {"head.weight", "head.bias"}
    assert depths["backbone.norm.weight"] == depths["backbone.blocks.3.norm1.weight"] == 1
    assert depths["backbone.blocks.0.attn.qkv.weight"] == 4
    lowest = {name for name, depth in depths.items() if depth == 5}
    assert lowest == {f"backbone.{name}" for name in ("cls_token", "pos_embed", "patch_embed.proj.weight")} | {
        "backbone.patch_embed.proj.bias"
    }


def test_the_split_lies_before_the_patch_embedding_whatever_number_of_blocks_is_asked_for(toy):
    assert first_tuned_block(build_network(toy.weights), replace(SHAPE, blocks=99)) == PIXELS


def test_what_it_ends_with_is_refused_as_a_version(whole):
    with pytest.raises(LearningError, match=r"cannot become a version: versions are adapters on frozen weights"):
        whole.record(whole.fresh())


def test_references_are_no_strategies_of_updates_and_say_why():
    assert not set(REFERENCES) & set(STRATEGIES)
    assert strategy_named("full") is REFERENCES["full"]
    with pytest.raises(StreamError, match=r"'full' makes no version: .*`continual benchmark --strategies full`"):
        update_strategy("full")
    with pytest.raises(StreamError, match="no strategy 'magic'; choose one of naive"):
        update_strategy("magic")


def test_a_record_of_an_unknown_method_is_refused_and_one_without_a_method_is_lora(toy, champion):
    import json

    from continual.learning import read_adapter

    def read(change):
        record = json.loads(champion.files["record.json"])
        change(record["network"])
        files = {**champion.files, "record.json": json.dumps(record).encode()}
        return read_adapter(toy.weights, files, torch.device("cpu"))

    def forget(network):
        del network["peft_method"], network["tuned_by"]

    assert read(forget).shape == toy.shape == replace(toy.shape, method="lora")
    for name in ("full", "magic"):
        with pytest.raises(AdapterMismatchError, match=f"PEFT method is '{name}', this release knows lora, dora"):
            read(lambda network, name=name: network.update(peft_method=name))
