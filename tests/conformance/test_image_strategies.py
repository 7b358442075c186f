"""What strategies promise of whole images beside what they promise of every task."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.errors import LearningError
from continual.domain.samples import Split
from continual.learning import STRATEGIES, Checkpoints, UpdateRequest, learn, loop, probabilities
from continual.learning.mixing import Mixture
from continual.learning.strategies import StrategyContext

NAMES = list(STRATEGIES)
DISTILLING = [name for name, strategy in STRATEGIES.items() if strategy.distils]
MIXING = [name for name, strategy in STRATEGIES.items() if strategy.mixes]


@pytest.mark.parametrize("name", NAMES)
def test_an_update_cut_off_again_and_again_ends_with_the_same_weights_bit_for_bit(
    toy, champion, images_case, power_cut, tmp_path, name
):
    heard = []
    checkpoints = Checkpoints(tmp_path / "state.safetensors", every_seconds=0, say=heard.append)

    def run(last: int) -> dict[str, torch.Tensor]:
        network = champion.network()
        torch.manual_seed(last)  # What the process drew before it was asked again must not matter.
        learn(network, toy.cache, champion.request(name), toy.options, power_cut.after(last), checkpoints)
        return network.state_dict()

    # Early, amid what a tuning mode opens late, and after the last step, whose result is kept too.
    for cut in (1, 2, 15, 27, 40):
        with pytest.raises(power_cut.error):
            run(last=cut)
    undisturbed, resumed = images_case.learnt(name), run(last=0)
    assert all(torch.equal(undisturbed[key], resumed[key]) for key in undisturbed)
    assert heard == [f"training goes on from step {cut} of 40" for cut in (1, 2, 15, 27, 40)]


@pytest.mark.parametrize("parts", [3, 16])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_learnt_in_parts_has_the_gradient_of_the_whole(images_case, name, parts):
    # Terms this strong outweigh the rest of the gradient: one that counted once per part would stand out.
    strong = {"steps": 3, "regularisation": 1e6, "distillation": 50.0}
    whole, parted = (images_case.watched(name, accumulate=count, **strong).witness for count in (1, parts))
    assert parted.batch_sizes == whole.batch_sizes
    for one, other, rounding in zip(whole.gradients, parted.gradients, (1e-4, 1e-2, 1e-2), strict=True):
        assert (one - other).norm() <= rounding * one.norm()


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_network(toy, champion, name):
    one, other = (toy.learn(champion.network(), champion.request(name), seed=seed, steps=2) for seed in (1, 2))
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("name", NAMES)
def test_only_a_strategy_that_replays_or_is_joint_asks_for_past_images(toy, champion, tmp_path, name):
    cache = toy.empty_cache(tmp_path)
    cache.fill(toy.samples["south", Split.TRAIN], toy.options.views, toy.pixels, lambda _n: None)
    narrow = replace(toy, cache=cache)
    if STRATEGIES[name].replays or STRATEGIES[name].joint:
        with pytest.raises(FileNotFoundError):
            narrow.learn(champion.network(), champion.request(name), steps=2)
    else:
        narrow.learn(champion.network(), champion.request(name), steps=2)


@pytest.mark.parametrize("name", DISTILLING)
def test_distillation_keeps_the_network_nearer_to_what_the_champion_said(toy, champion, name):
    """On the memory for a strategy that replays; on the new site, where the champion errs, for one that does not."""
    network = champion.network()
    samples = champion.memory if STRATEGIES[name].replays else toy.samples["south", Split.TRAIN]
    digests = [sample.digest for sample in samples]
    said = np.log(probabilities(network, toy.cache, digests, lambda _n: None))

    def apart(strength: float) -> float:
        learnt = toy.learn(champion.network(), champion.request(name), distillation=strength)
        now = np.log(probabilities(learnt, toy.cache, digests, lambda _n: None))
        return float((np.exp(said) * (said - now)).sum(axis=1).mean())

    assert apart(20.0) < 0.7 * apart(0.0)


@pytest.mark.parametrize("name", MIXING)
def test_mixtures_that_hold_one_image_each_teach_what_unmixed_images_do(images_case, unmixed_twin, name, monkeypatch):
    # Every patch is seen, since mixtures and patches draw from one chance.
    unmixed, mixed = (images_case.learnt(some, steps=6, patch_share=1.0) for some in (unmixed_twin(name), name))
    monkeypatch.setattr(loop, "draw_mixture", lambda images, _mixing, _device: Mixture(1.0, torch.randperm(images)))
    pure = images_case.learnt(name, steps=6, patch_share=1.0)
    assert all(torch.allclose(unmixed[key], pure[key], atol=1e-6) for key in unmixed)
    assert not all(torch.allclose(unmixed[key], mixed[key], atol=1e-6) for key in unmixed)


@pytest.mark.parametrize("name", MIXING)
def test_nothing_is_mixed_where_there_is_no_memory(toy, name):
    first = UpdateRequest("naive", toy.samples["north", Split.TRAIN])
    plain, same = (
        toy.learn(toy.fresh(), replace(first, strategy=some), steps=4).state_dict() for some in ("naive", name)
    )
    assert all(torch.equal(plain[key], same[key]) for key in plain)


@pytest.mark.parametrize("name", MIXING)
def test_a_mixing_of_nothing_is_refused(images_case, name):
    with pytest.raises(LearningError, match=rf"mixing of 0, must be at least 0.05 for '{name}'; correct mixing"):
        images_case.learnt(name, steps=1, mixing=0)


@pytest.mark.parametrize(("remembered", "share"), [(1, 1.0), (50, 1.0), (100, 0.5), (200, 0.25)])
def test_beside_mixtures_a_small_memorys_weights_are_held_the_more(champion, penalty, remembered, share):
    network = champion.network()
    away = {key: weight.detach() + 0.01 for key, weight in network.trainable().items()}
    context = StrategyContext(None, champion.importance, away, 8, regularisation=100.0, remembered=remembered)
    assert penalty("replay_mix_ewc", context, network) == pytest.approx(share * penalty("ewc", context, network))


def test_a_strategy_hears_how_many_images_are_remembered(toy, champion, monkeypatch):
    heard = []

    def plugins(context: StrategyContext) -> tuple[()]:
        heard.append(context.remembered)
        return ()

    monkeypatch.setitem(STRATEGIES, "listening", replace(STRATEGIES["replay"], plugins=plugins))
    request = replace(champion.request("listening"), memory=champion.memory[:7])
    toy.learn(champion.network(), request, steps=1)
    toy.learn(toy.fresh(), UpdateRequest("listening", toy.samples["north", Split.TRAIN]), steps=1)
    assert heard == [7, 0]
