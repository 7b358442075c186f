"""What every strategy promises, run over the registry: a new one is tested by being listed.

The stream: north, then south, whose colours stand the other way round. A network that learns south alone fails north;
one that also sees north's images learns both. The margins below held under each of five seeds tried.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from continual.domain.samples import Split
from continual.learning import STRATEGIES, AdaptedNetwork, UpdateRequest, probabilities, read_adapter, write_adapter
from continual.learning.strategies import StrategyContext

NAMES = list(STRATEGIES)
REPLAYING = [name for name, strategy in STRATEGIES.items() if strategy.replays]
REGULARISING = [name for name, strategy in STRATEGIES.items() if strategy.regularises]
JOINT = [name for name, strategy in STRATEGIES.items() if strategy.joint]


class _Witness(SupervisedPlugin):
    """Rides along in Avalanche's loop and writes down what the optimizer holds and what is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.batch_sizes: list[int] = []
        self.replayed = 0

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


@pytest.fixture(scope="session")
def update_of(toy, champion):
    """Updates by strategy, each made once."""
    made: dict[str, Update] = {}

    def update(name: str) -> Update:
        if name not in made:
            witness, strategy = _Witness(), STRATEGIES[name]
            watched = replace(strategy, plugins=lambda context: [*strategy.plugins(context), witness])
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(STRATEGIES, name, watched)
                made[name] = Update(toy.learn(champion.network(), champion.request(name)), witness)
        return made[name]

    return update


def _accuracy(toy, network, site):
    return toy.score(network, site).balanced_accuracy


def test_every_name_is_its_key_and_every_strategy_says_what_it_does():
    assert all(name == strategy.name and strategy.summary for name, strategy in STRATEGIES.items())
    assert REPLAYING
    assert REGULARISING
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
def test_another_seed_gives_another_network(toy, champion, name):
    one, other = (toy.learn(champion.network(), champion.request(name), seed=seed, steps=2) for seed in (1, 2))
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_adapter_survives_being_written_and_read_exactly(toy, update_of, name):
    network = update_of(name).network
    files = write_adapter(network, {}, toy.record(network))
    read = read_adapter(toy.weights, files, torch.device("cpu"))
    digests = [sample.digest for site in ("north", "south") for sample in toy.samples[site, Split.TEST]]
    before, after = (probabilities(some, toy.cache, digests, lambda _n: None) for some in (network, read))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", NAMES)
def test_no_frozen_weight_ever_changes_and_every_trainable_one_does(champion, update_of, name):
    before, network = champion.network().state_dict(), update_of(name).network
    trainable, after = set(network.trainable()), network.state_dict()
    assert set(before) == set(after)
    assert {key for key in after if not torch.equal(before[key], after[key])} == trainable


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_holds_the_trainable_parameters_and_no_other(update_of, name):
    update = update_of(name)
    assert update.witness.held == {id(weight) for weight in update.network.trainable().values()}


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
