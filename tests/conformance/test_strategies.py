"""What every strategy promises, run over the registry: a new one is tested by being listed.

The stream: north, then south, whose colours stand the other way round. A network that learns south alone fails north;
one that also sees north's images learns both. The margins below held under each of five seeds tried.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from continual.domain.errors import StreamError
from continual.domain.samples import Split
from continual.learning import (
    STRATEGIES,
    AdaptedNetwork,
    Checkpoints,
    UpdateRequest,
    learn,
    probabilities,
    read_adapter,
    write_adapter,
)
from continual.learning.strategies import StrategyContext

NAMES = list(STRATEGIES)
REPLAYING = [name for name, strategy in STRATEGIES.items() if strategy.replays]
REGULARISING = [name for name, strategy in STRATEGIES.items() if strategy.regularises]
DISTILLING = [name for name, strategy in STRATEGIES.items() if strategy.distils]
JOINT = [name for name, strategy in STRATEGIES.items() if strategy.joint]


class _Witness(SupervisedPlugin):
    """Rides along in Avalanche's loop and writes down what the optimizer holds, gradients and what is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.batch_sizes: list[int] = []
        self.gradients: list[torch.Tensor] = []
        self.replayed = 0

    def before_update(self, strategy, **kwargs):  # noqa: ARG002 (Avalanche's signature)
        found = [weight.grad.flatten() for weight in strategy.model.trainable().values() if weight.grad is not None]
        self.gradients.append(torch.cat(found).clone())

    def after_training_iteration(self, strategy, **kwargs):  # noqa: ARG002 (Avalanche's signature)
        self.held |= {id(weight) for group in strategy.optimizer.param_groups for weight in group["params"]}
        self.batch_sizes.append(len(strategy.mb_x))
        policies = [plugin.storage_policy for plugin in strategy.plugins if hasattr(plugin, "storage_policy")]
        self.replayed = sum(len(policy.buffer) for policy in policies)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A network that learnt south from the champion, and what was seen on the way."""

    network: AdaptedNetwork
    witness: _Witness


class _PowerCutError(Exception):
    """Ends an update from inside, between two steps."""


def _watched(toy, champion, name, **changed):
    """An update as its witness saw it; `changed` overrides training options."""
    witness, strategy = _Witness(), STRATEGIES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            STRATEGIES, name, replace(strategy, plugins=lambda context: [*strategy.plugins(context), witness])
        )
        return Update(toy.learn(champion.network(), champion.request(name), **changed), witness)


def _same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="session")
def update_of(toy, champion):
    """Updates by strategy, each made once."""
    made: dict[str, Update] = {}

    def update(name: str) -> Update:
        if name not in made:
            made[name] = _watched(toy, champion, name)
        return made[name]

    return update


def _accuracy(toy, network, site):
    return toy.score(network, site).balanced_accuracy


def _tuned(name, network):
    """Names of the weights that the strategy's tuning mode ever lets learn."""
    depths = network.depths()
    deepest = max(depths.values())
    return {weight for weight, depth in depths.items() if STRATEGIES[name].tuning.opening(depth, deepest) < 1}


def _answers(toy, network):
    digests = [sample.digest for site in ("north", "south") for sample in toy.samples[site, Split.TEST]]
    return probabilities(network, toy.cache, digests, lambda _n: None)


def test_every_name_is_its_key_and_every_strategy_says_what_it_does():
    assert all(name == strategy.name and strategy.summary for name, strategy in STRATEGIES.items())
    assert REPLAYING
    assert REGULARISING
    assert DISTILLING
    assert JOINT


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_a_first_site_from_nothing(toy, name):
    request = UpdateRequest(name, toy.samples["north", Split.TRAIN])
    assert _accuracy(toy, toy.learn(toy.fresh(), request), "north") > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_the_new_site_from_the_champion(toy, champion, update_of, name):
    assert _accuracy(toy, champion.network(), "south") < 0.5
    assert _accuracy(toy, update_of(name).network, "south") > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_is_bit_for_bit_deterministic_under_its_seed(toy, champion, update_of, name):
    first = update_of(name).network.state_dict()
    torch.manual_seed(99)  # What the caller drew before must not matter.
    again = toy.learn(champion.network(), champion.request(name)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_cut_off_again_and_again_ends_with_the_same_weights_bit_for_bit(
    toy, champion, update_of, tmp_path, name
):
    heard = []
    checkpoints = Checkpoints(tmp_path / "state.safetensors", every_seconds=0, say=heard.append)

    def run(last: int) -> AdaptedNetwork:
        network, done = champion.network(), []

        def progress(steps: int) -> None:
            done.append(steps)
            if sum(done) == last:
                raise _PowerCutError

        torch.manual_seed(last)  # What the process drew before it was asked again must not matter.
        learn(network, toy.cache, champion.request(name), toy.options, progress, checkpoints)
        return network

    # Early, amid what a tuning mode opens late, and after the last step, whose result is kept too.
    for cut in (1, 2, 15, 27, 40):
        with pytest.raises(_PowerCutError):
            run(last=cut)
    assert _same(update_of(name).network.state_dict(), run(last=0).state_dict())
    assert heard == [f"training goes on from step {cut} of 40" for cut in (1, 2, 15, 27, 40)]


@pytest.mark.parametrize("parts", [2, 3, 16])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_learnt_in_parts_has_the_gradient_of_the_whole(toy, champion, name, parts):
    # Terms this strong outweigh the rest of the gradient: one that counted once per part would stand out.
    strong = {"steps": 3, "regularisation": 1e6, "distillation": 50.0}
    whole, parted = (_watched(toy, champion, name, accumulate=count, **strong).witness for count in (1, parts))
    assert parted.batch_sizes == whole.batch_sizes
    for one, other, rounding in zip(whole.gradients, parted.gradients, (1e-4, 1e-2, 1e-2), strict=True):
        assert (one - other).norm() <= rounding * one.norm()


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_network(toy, champion, name):
    one, other = (toy.learn(champion.network(), champion.request(name), seed=seed, steps=2) for seed in (1, 2))
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_adapter_survives_being_written_and_read_exactly(toy, update_of, name):
    network = update_of(name).network
    files = write_adapter(network, {}, toy.record(network))
    read = read_adapter(toy.weights, files, torch.device("cpu"))
    assert np.array_equal(_answers(toy, network), _answers(toy, read))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_identical_update_changes_little(toy, champion, update_of, name):
    first, again = update_of(name).network, champion.network()
    again.load_state_dict(first.state_dict())
    toy.learn(again, champion.request(name))
    before, after = _answers(toy, first), _answers(toy, again)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() > 0.9
    assert _accuracy(toy, again, "south") > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_no_frozen_weight_or_buffer_ever_changes_and_every_tuned_one_does(champion, update_of, name):
    start, network = champion.network(), update_of(name).network
    before, after = ({**dict(some.named_parameters()), **dict(some.named_buffers())} for some in (start, network))
    assert set(before) == set(after)
    assert {key for key in after if not torch.equal(before[key], after[key])} == _tuned(name, network)


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_holds_the_tuned_parameters_and_no_other(update_of, name):
    update, tuned = update_of(name), _tuned(name, update_of(name).network)
    weights = {key: weight for key, weight in update.network.named_parameters() if weight.requires_grad}
    # A tuning mode ends with its update: what the next one may change is whole again.
    assert set(weights) == {key for key in weights if key.startswith("head.") or ".lora_" in key}
    assert any(".lora_" in key for key in weights)
    assert update.witness.held == {id(weight) for key, weight in weights.items() if key in tuned}


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_one_whole_batch_and_progress_hears_of_each(toy, update_of, name):
    assert update_of(name).witness.batch_sizes == [toy.options.batch_size] * toy.options.steps


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


@pytest.mark.parametrize("name", REGULARISING)
def test_a_regulariser_adds_nothing_at_the_champion_and_something_away_from_it(champion, name):
    network = champion.network()
    anchor = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    context = StrategyContext(None, champion.importance, anchor, batch_size=16, regularisation=100.0)

    def added() -> float:
        class Loop:
            loss = torch.zeros(())
            model = network

        loop = Loop()
        for plugin in STRATEGIES[name].plugins(context):
            plugin.before_backward(loop)
        return loop.loss.item()

    assert added() == 0
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(0.01)
    assert added() > 0


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_strategy_differs_from_its_plain_twin_by_distillation_alone(toy, champion, name):
    plain = "replay" if STRATEGIES[name].replays else "naive"
    twin, silent, taught = (
        toy.learn(champion.network(), champion.request(some), steps=8, distillation=strength).state_dict()
        for some, strength in ((plain, 1.0), (name, 0.0), (name, 1.0))
    )
    assert all(torch.equal(twin[key], silent[key]) for key in twin)
    assert not all(torch.equal(twin[key], taught[key]) for key in twin)


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


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_strategy_refuses_a_past_whose_classes_it_is_not_told(toy, champion, name):
    with pytest.raises(StreamError, match="names 0 classes that it was taught; pass the champion's classes"):
        toy.learn(champion.network(), replace(champion.request(name), taught=()), steps=2)


@pytest.mark.parametrize("name", REPLAYING)
def test_a_strategy_that_replays_fills_its_buffer_and_forgets_less_than_naive(toy, update_of, name):
    assert update_of(name).witness.replayed > 0
    assert update_of("naive").witness.replayed == 0
    kept, forgotten = (_accuracy(toy, update_of(some).network, "north") for some in (name, "naive"))
    assert forgotten < 0.5
    assert kept > 0.8


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_strategy_sees_the_past_and_knows_both_sites(toy, update_of, name):
    assert all(_accuracy(toy, update_of(name).network, site) > 0.8 for site in ("north", "south"))
