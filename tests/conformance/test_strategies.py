"""What every strategy promises, run over the registry and over every task: a new one is tested by being listed.

The stream: north, then south, whose colours stand the other way round. A network that learns south alone fails north;
one that also sees north's samples learns both. The margins below held of images under each of five seeds tried.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.errors import StreamError
from continual.domain.samples import Split
from continual.learning import STRATEGIES, UpdateRequest, read_adapter, write_adapter
from continual.learning.strategies import StrategyContext
from continual.learning.strategies.tuning import WHOLE

NAMES = list(STRATEGIES)
TUNED_APART = [name for name, strategy in STRATEGIES.items() if strategy.tuning is not WHOLE]
AS_NAIVE = [name for name in NAMES if name != "naive" and name not in TUNED_APART]
REPLAYING = [name for name, strategy in STRATEGIES.items() if strategy.replays]
REGULARISING = [name for name, strategy in STRATEGIES.items() if strategy.regularises]
DISTILLING = [name for name, strategy in STRATEGIES.items() if strategy.distils]
MIXING = [name for name, strategy in STRATEGIES.items() if strategy.mixes]
JOINT = [name for name, strategy in STRATEGIES.items() if strategy.joint]


def test_every_name_is_its_key_and_every_strategy_says_what_it_does():
    assert all(name == strategy.name and strategy.summary for name, strategy in STRATEGIES.items())
    assert REPLAYING
    assert REGULARISING
    assert DISTILLING
    assert MIXING
    assert JOINT


@pytest.mark.parametrize("name", ["naive", *TUNED_APART])
def test_a_strategy_learns_a_first_site_from_nothing(case, name):
    request = UpdateRequest(name, case.bench.samples["north", Split.TRAIN])
    assert case.score(case.bench.learn(case.bench.fresh(), request), "north") > 0.9


@pytest.mark.parametrize("name", AS_NAIVE)
def test_where_there_is_no_past_a_strategy_is_naive_bit_for_bit(case, name):
    plain, same = (
        case.bench.learn(
            case.bench.fresh(), UpdateRequest(some, case.bench.samples["north", Split.TRAIN]), steps=4
        ).state_dict()
        for some in ("naive", name)
    )
    assert all(torch.equal(plain[key], same[key]) for key in plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_the_new_site_from_the_champion(case, name):
    assert case.score(case.champion.network(), "south") < 0.5
    assert case.score(case.update(name).network, "south") > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_is_bit_for_bit_deterministic_under_its_seed(case, name):
    first = case.learnt(name, steps=8)
    torch.manual_seed(99)  # What the caller drew before must not matter.
    again = case.learnt(name, steps=8)
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_adapter_survives_being_written_and_read_exactly(case, name):
    network = case.update(name).network
    files = write_adapter(network, {}, case.bench.record(network))
    read = read_adapter(case.bench.weights, files, torch.device("cpu"))
    assert np.array_equal(case.answers(network), case.answers(read))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_identical_update_changes_little(images_case, name):
    first, again = images_case.update(name).network, images_case.champion.network()
    again.load_state_dict(first.state_dict())
    images_case.bench.learn(again, images_case.champion.request(name))
    before, after = images_case.answers(first), images_case.answers(again)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() > 0.9
    assert images_case.score(again, "south") > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_no_frozen_weight_or_buffer_ever_changes_and_every_tuned_one_does(case, name):
    start, network = case.champion.network(), case.update(name).network
    before, after = ({**dict(some.named_parameters()), **dict(some.named_buffers())} for some in (start, network))
    assert set(before) == set(after)
    assert {key for key in after if not torch.equal(before[key], after[key])} == case.tuned(name, network)


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_holds_the_tuned_parameters_and_no_other(case, name):
    update, tuned = case.update(name), case.tuned(name, case.update(name).network)
    weights = {key: weight for key, weight in update.network.named_parameters() if weight.requires_grad}
    # A tuning mode ends with its update: what the next one may change is whole again.
    assert set(weights) == {key for key in weights if key.startswith("head.") or ".lora_" in key}
    assert any(".lora_" in key for key in weights)
    assert update.witness.held == {id(weight) for key, weight in weights.items() if key in tuned}


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_one_whole_batch_and_progress_hears_of_each(case, name):
    assert case.update(name).witness.batch_sizes == [case.bench.options.batch_size] * case.bench.options.steps


@pytest.mark.parametrize("name", REGULARISING)
def test_a_regulariser_adds_nothing_at_the_champion_and_something_away_from_it(case, penalty, name):
    network = case.champion.network()
    anchor = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    context = StrategyContext(None, case.champion.importance, anchor, batch_size=8, regularisation=100.0)
    assert penalty(name, context, network) == 0
    with torch.no_grad():
        for weight in network.trainable().values():
            weight.add_(0.01)
    assert penalty(name, context, network) > 0


@pytest.mark.parametrize("name", [name for name in DISTILLING if name not in MIXING])
def test_a_distilling_strategy_differs_from_its_plain_twin_by_distillation_alone(case, name):
    plain = "replay" if STRATEGIES[name].replays else "naive"
    # On all patches: which of them the champion looks at is drawn, and moves the chance of the steps that follow.
    twin, silent, taught = (
        case.learnt(some, steps=6, distillation=strength, patch_share=1.0)
        for some, strength in ((plain, 1.0), (name, 0.0), (name, 1.0))
    )
    assert all(torch.equal(twin[key], silent[key]) for key in twin)
    assert not all(torch.equal(twin[key], taught[key]) for key in twin)


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_strategy_refuses_a_past_whose_classes_it_is_not_told(case, name):
    with pytest.raises(StreamError, match="names 0 classes that it was taught; pass the champion's classes"):
        case.bench.learn(case.champion.network(), replace(case.champion.request(name), taught=()), steps=2)


@pytest.mark.parametrize("name", REPLAYING)
def test_a_strategy_that_replays_fills_its_buffer_and_forgets_less_than_naive(case, name):
    assert case.update(name).witness.replayed > 0
    assert case.update("naive").witness.replayed == 0
    kept, forgotten = (case.score(case.update(some).network, "north") for some in (name, "naive"))
    assert forgotten < 0.5
    assert kept > 0.8


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_strategy_sees_the_past_and_knows_both_sites(case, name):
    assert all(case.score(case.update(name).network, site) > 0.8 for site in ("north", "south"))
