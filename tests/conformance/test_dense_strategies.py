"""What every strategy promises of masks, run over the registry: a new one is tested by being listed.

The stream: north, then south, whose colours stand the other way round. A network that learns south alone fails north;
one that also sees north's tiles learns both.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin

from continual.domain.errors import StreamError
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
    probabilities,
    read_adapter,
    usual_alpha,
    write_adapter,
)
from continual.learning.strategies import StrategyContext

NAMES = list(STRATEGIES)
REPLAYING = [name for name, strategy in STRATEGIES.items() if strategy.replays]
REGULARISING = [name for name, strategy in STRATEGIES.items() if strategy.regularises]
DISTILLING = [name for name, strategy in STRATEGIES.items() if strategy.distils]
JOINT = [name for name, strategy in STRATEGIES.items() if strategy.joint]


class _Witness(SupervisedPlugin):
    """Rides along in Avalanche's loop and writes down what the batches hold and what is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: list[int] = []
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        self.numbers: set[int] = set()
        self.gradients: list[torch.Tensor] = []
        self.replayed = 0

    def before_update(self, strategy, **kwargs):  # noqa: ARG002 (Avalanche's signature)
        found = [weight.grad.flatten() for weight in strategy.model.trainable().values() if weight.grad is not None]
        self.gradients.append(torch.cat(found).clone())

    def after_training_iteration(self, strategy, **kwargs):  # noqa: ARG002 (Avalanche's signature)
        self.batch_sizes.append(len(strategy.mb_x))
        self.shapes.add((tuple(strategy.mb_output.shape[1:]), tuple(strategy.mb_y.shape[1:])))
        self.numbers |= set(strategy.mb_y.unique().tolist())
        policies = [plugin.storage_policy for plugin in strategy.plugins if hasattr(plugin, "storage_policy")]
        self.replayed = sum(len(policy.buffer) for policy in policies)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A network that learnt south from the champion, and what was seen on the way."""

    network: SegmentingNetwork
    witness: _Witness


class _PowerCutError(Exception):
    """Ends an update from inside, between two steps."""


def _watched(dense, champion, name, **changed):
    """An update as its witness saw it; `changed` overrides training options."""
    witness, strategy = _Witness(), STRATEGIES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            STRATEGIES, name, replace(strategy, plugins=lambda context: [*strategy.plugins(context), witness])
        )
        return Update(dense.learn(champion.network(), champion.request(name), **changed), witness)


@pytest.fixture(scope="session")
def update_of(dense, dense_champion):
    """Updates by strategy, each made once."""
    made: dict[str, Update] = {}

    def update(name: str) -> Update:
        if name not in made:
            made[name] = _watched(dense, dense_champion, name)
        return made[name]

    return update


def _dice(dense, network, site):
    return dense.score(network, site).dice


def _tuned(name, network):
    """Names of the weights that the strategy's tuning mode ever lets learn."""
    depths = network.depths()
    deepest = max(depths.values())
    return {weight for weight, depth in depths.items() if STRATEGIES[name].tuning.opening(depth, deepest) < 1}


def _answers(dense, network):
    digests = [sample.digest for site in ("north", "south") for sample in dense.samples[site, Split.TEST]]
    return probabilities(network, dense.cache, digests, lambda _n: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_a_first_sites_masks_from_nothing(dense, name):
    request = UpdateRequest(name, dense.samples["north", Split.TRAIN])
    assert _dice(dense, dense.learn(dense.fresh(), request), "north") > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_the_new_sites_masks_from_the_champion(dense, dense_champion, update_of, name):
    assert _dice(dense, dense_champion.network(), "south") < 0.5
    assert _dice(dense, update_of(name).network, "south") > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_is_bit_for_bit_deterministic_under_its_seed(dense, dense_champion, update_of, name):
    first = update_of(name).network.state_dict()
    torch.manual_seed(99)  # What the caller drew before must not matter.
    again = dense.learn(dense_champion.network(), dense_champion.request(name)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_a_learnt_version_survives_being_written_and_read_exactly(dense, update_of, name):
    network = update_of(name).network
    read = read_adapter(dense.weights, write_adapter(network, {}, dense.record(network)), torch.device("cpu"))
    assert np.array_equal(_answers(dense, network), _answers(dense, read))


@pytest.mark.parametrize("name", NAMES)
def test_no_frozen_weight_or_buffer_ever_changes_and_every_tuned_one_does(dense_champion, update_of, name):
    start, network = dense_champion.network(), update_of(name).network
    before, after = ({**dict(some.named_parameters()), **dict(some.named_buffers())} for some in (start, network))
    assert set(before) == set(after)
    assert {key for key in after if not torch.equal(before[key], after[key])} == _tuned(name, network)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_one_whole_batch_of_tiles_with_their_masks(dense, update_of, name):
    witness, side = update_of(name).witness, dense.cache.grid.tile
    assert witness.batch_sizes == [dense.options.batch_size] * dense.options.steps
    assert witness.shapes == {((2, side, side), (side, side))}
    assert witness.numbers == {0, 1, IGNORED}


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_tiles_learnt_in_parts_has_the_gradient_of_the_whole(dense, dense_champion, name, parts):
    # Terms this strong outweigh the rest of the gradient: one that counted once per part would stand out.
    strong = {"steps": 2, "regularisation": 1e6, "distillation": 50.0}
    whole, parted = (_watched(dense, dense_champion, name, accumulate=count, **strong).witness for count in (1, parts))
    assert parted.batch_sizes == whole.batch_sizes
    for one, other, rounding in zip(whole.gradients, parted.gradients, (1e-4, 1e-2), strict=True):
        assert (one - other).norm() <= rounding * one.norm()


@pytest.mark.parametrize("name", NAMES)
def test_an_update_of_masks_that_is_cut_off_goes_on_and_ends_with_the_same_weights(
    dense, dense_champion, tmp_path, name
):
    request, options, path = dense_champion.request(name), replace(dense.options, steps=4), tmp_path / "state"
    said: list[str] = []

    def run(network, told):
        learn(network, dense.cache, request, options, told, Checkpoints(path, 0.0, said.append))
        return network.state_dict()

    def cut(_steps):
        if path.exists():
            raise _PowerCutError

    with pytest.raises(_PowerCutError):
        run(dense_champion.network(), cut)
    resumed = run(dense_champion.network(), lambda _n: None)
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
def test_masks_are_learnt_and_kept_by_every_peft_method(dense, method):
    shape = replace(dense.shape, method=method, alpha=usual_alpha(method, dense.shape.rank))
    bench = replace(dense, shape=shape)
    network = bench.learn(bench.fresh(), UpdateRequest("naive", dense.samples["north", Split.TRAIN]), steps=3)
    read = read_adapter(dense.weights, write_adapter(network, {}, bench.record(network)), torch.device("cpu"))
    assert read.shape == shape
    assert np.array_equal(_answers(dense, network), _answers(dense, read))


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


@pytest.mark.parametrize("name", REGULARISING)
def test_a_regulariser_adds_nothing_at_the_champion_and_something_away_from_it(dense_champion, name):
    network = dense_champion.network()
    anchor = {key: weight.detach().clone() for key, weight in network.trainable().items()}
    context = StrategyContext(None, dense_champion.importance, anchor, batch_size=8, regularisation=100.0)

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


def test_importance_is_measured_for_every_weight_of_decoder_and_lora(dense_champion):
    importance, weights = dense_champion.importance, dense_champion.network().trainable()
    assert set(importance) == set(weights)
    assert all(float(value.sum()) > 0 for value in importance.values())


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_strategy_differs_from_its_plain_twin_by_distillation_alone(dense, dense_champion, name):
    plain = "replay" if STRATEGIES[name].replays else "naive"
    twin, silent, taught = (
        dense.learn(dense_champion.network(), dense_champion.request(some), steps=6, distillation=strength).state_dict()
        for some, strength in ((plain, 1.0), (name, 0.0), (name, 1.0))
    )
    assert all(torch.equal(twin[key], silent[key]) for key in twin)
    assert not all(torch.equal(twin[key], taught[key]) for key in twin)


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


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_strategy_refuses_a_past_whose_classes_it_is_not_told(dense, dense_champion, name):
    with pytest.raises(StreamError, match="names 0 classes that it was taught; pass the champion's classes"):
        dense.learn(dense_champion.network(), replace(dense_champion.request(name), taught=()), steps=2)


@pytest.mark.parametrize("name", REPLAYING)
def test_a_strategy_that_replays_fills_its_buffer_and_forgets_less_than_naive(dense, update_of, name):
    assert update_of(name).witness.replayed > 0
    assert update_of("naive").witness.replayed == 0
    kept, forgotten = (_dice(dense, update_of(some).network, "north") for some in (name, "naive"))
    assert forgotten < 0.5
    assert kept > 0.8


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_strategy_sees_the_past_and_knows_both_sites(dense, update_of, name):
    assert all(_dice(dense, update_of(name).network, site) > 0.8 for site in ("north", "south"))
