"""What strategies promise of masks beside what they promise of every task."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.samples import IGNORED, Split
from continual.learning import (
    PEFT_METHODS,
    STRATEGIES,
    WHOLE_BACKBONE,
    Checkpoints,
    LoraShape,
    SegmentingNetwork,
    TileCache,
    UpdateRequest,
    build_network,
    first_tuned_block,
    learn,
    read_adapter,
    usual_alpha,
    write_adapter,
)

NAMES = list(STRATEGIES)
MIXING = [name for name, strategy in STRATEGIES.items() if strategy.mixes]
DISTILLING = [name for name, strategy in STRATEGIES.items() if strategy.distils and not strategy.mixes]
"""Without those that mix images: masks are never mixed, so that they distil as `replay_lwf` does, which is tested."""


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_one_whole_batch_of_tiles_with_their_masks(masks_case, name):
    witness, dense = masks_case.watched(name, steps=3).witness, masks_case.bench
    side = dense.cache.grid.tile
    assert witness.batch_sizes == [dense.options.batch_size] * 3
    assert witness.shapes == {((2, side, side), (side, side))}
    assert witness.numbers == {0, 1, IGNORED}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_tiles_learnt_in_parts_has_the_gradient_of_the_whole(masks_case, name):
    # Terms this strong outweigh the rest of the gradient: one that counted once per part would stand out.
    strong = {"steps": 2, "regularisation": 1e6, "distillation": 50.0}
    whole, parted = (masks_case.watched(name, accumulate=count, **strong).witness for count in (1, 3))
    assert parted.batch_sizes == whole.batch_sizes
    for one, other, rounding in zip(whole.gradients, parted.gradients, (1e-4, 1e-2), strict=True):
        assert (one - other).norm() <= rounding * one.norm()


@pytest.mark.parametrize("name", NAMES)
def test_an_update_of_masks_that_is_cut_off_goes_on_and_ends_with_the_same_weights(
    dense, dense_champion, power_cut, tmp_path, name
):
    request, options, path = dense_champion.request(name), replace(dense.options, steps=4), tmp_path / "state"
    said: list[str] = []

    def run(network, told):
        learn(network, dense.cache, request, options, told, Checkpoints(path, 0.0, said.append))
        return network.state_dict()

    with pytest.raises(power_cut.error):
        run(dense_champion.network(), power_cut.after(1))
    resumed = run(dense_champion.network(), power_cut.after(0))
    assert said == ["training goes on from step 1 of 4"]
    plain = dense.learn(dense_champion.network(), request, steps=4).state_dict()
    assert all(torch.equal(plain[key], resumed[key]) for key in plain)


def test_a_kept_state_of_masks_is_not_used_once_a_mask_was_corrected(dense, dense_champion, tmp_path):
    options, path = replace(dense.options, steps=2), tmp_path / "state"
    request, said = dense_champion.request("naive"), []
    checkpoints = Checkpoints(path, 0.0, said.append)
    learn(dense_champion.network(), dense.cache, request, options, lambda _n: None, checkpoints)
    first, second = request.experience[:2]
    # The first image's mask is now what the second one's was: both files are in the cache.
    cache = dense.empty_cache(tmp_path / "tiles")
    corrected = [replace(first, mask=second.mask), *request.experience[1:]]
    cache.fill([*corrected, *request.memory, *request.past], options.views, dense.pixels, lambda _n: None)
    changed = replace(request, experience=corrected)
    learn(dense_champion.network(), cache, changed, options, lambda _n: None, checkpoints)
    assert [line.split(",")[0] for line in said] == ["the kept training state is not used"]


@pytest.mark.parametrize("method", list(PEFT_METHODS))
def test_masks_are_learnt_and_kept_by_every_peft_method(dense, masks_case, method):
    shape = replace(dense.shape, method=method, alpha=usual_alpha(method, dense.shape.rank))
    bench = replace(dense, shape=shape)
    network = bench.learn(bench.fresh(), UpdateRequest("naive", dense.samples["north", Split.TRAIN]), steps=3)
    read = read_adapter(dense.weights, write_adapter(network, {}, bench.record(network)), torch.device("cpu"))
    assert read.shape == shape
    assert np.array_equal(masks_case.answers(network), masks_case.answers(read))


def test_the_whole_backbone_learns_masks_from_a_cache_of_pixels(dense, tmp_path):
    network = build_network(dense.weights)
    shape = LoraShape(method=WHOLE_BACKBONE)
    key = replace(dense.cache.key, blocks=first_tuned_block(network, shape))
    cache = TileCache(tmp_path, key, dense.cache.grid.tile, network, torch.device("cpu"), dense.cache.whole_mask)
    bench = replace(dense, shape=shape, cache=cache)
    cache.fill([s for group in dense.samples.values() for s in group], 2, dense.pixels, lambda _n: None)
    before = bench.fresh()
    learnt = bench.learn(bench.fresh(), UpdateRequest("full", dense.samples["north", Split.TRAIN]))
    moved = [name for name, weight in learnt.trainable().items() if not torch.equal(weight, before.trainable()[name])]
    assert "backbone.patch_embed.proj.weight" in moved
    assert bench.score(learnt, "north").dice > 0.9


def test_importance_is_measured_for_every_weight_of_decoder_and_lora(dense_champion):
    importance, weights = dense_champion.importance, dense_champion.network().trainable()
    assert set(importance) == set(weights)
    assert all(float(value.sum()) > 0 for value in importance.values())


@pytest.mark.parametrize("name", DISTILLING)
def test_distillation_keeps_the_network_nearer_to_what_the_champion_said(dense, dense_champion, name):
    """On the memory for a strategy that replays; on the new site, where the champion errs, for one that does not."""
    samples = dense_champion.memory if STRATEGIES[name].replays else dense.samples["south", Split.TRAIN]
    tiles = [dense.cache.inputs(sample.digest, tile) for sample in samples for tile in range(dense.cache.grid.tiles)]
    tokens, pixels = (torch.stack(part) for part in zip(*tiles, strict=True))

    def said(network: SegmentingNetwork) -> torch.Tensor:
        with torch.no_grad():
            return network.eval()(tokens, pixels).log_softmax(dim=1)

    champion = said(dense_champion.network())

    def apart(strength: float) -> float:
        learnt = said(dense.learn(dense_champion.network(), dense_champion.request(name), distillation=strength))
        return float((champion.exp() * (champion - learnt)).sum(dim=1).mean())

    assert apart(20.0) < 0.7 * apart(0.0)


@pytest.mark.parametrize("name", MIXING)
def test_tiles_with_masks_are_not_mixed(masks_case, unmixed_twin, name):
    plain, same = (masks_case.learnt(some, steps=3) for some in (unmixed_twin(name), name))
    assert all(torch.equal(plain[key], same[key]) for key in plain)
