"""What the conformance suites share: a witness of Avalanche's loop, and the tasks that every promise is kept for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from continual.domain.samples import Split

if TYPE_CHECKING:
    from continual.learning import TunedNetwork


@dataclass(eq=False)
class Witness:
    """What was seen of an update from inside the loop, batch by batch."""

    held: set[int] = field(default_factory=set)
    batch_sizes: list[int] = field(default_factory=list)
    shapes: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    gradients: list[Any] = field(default_factory=list)
    replayed: int = 0

    def plugin(self) -> Any:
        """Rides along in Avalanche's loop."""
        import torch
        from avalanche.core import SupervisedPlugin

        witness = self

        class Riding(SupervisedPlugin):
            def before_update(self, strategy, **kwargs):  # noqa: ARG002 (Avalanche's signature)
                weights = strategy.model.trainable().values()
                found = [weight.grad.flatten() for weight in weights if weight.grad is not None]
                witness.gradients.append(torch.cat(found).clone())

            def after_training_iteration(self, strategy, **kwargs):  # noqa: ARG002 (the same)
                witness.held |= {id(weight) for group in strategy.optimizer.param_groups for weight in group["params"]}
                witness.batch_sizes.append(len(strategy.mb_x))
                witness.shapes.add((tuple(strategy.mb_output.shape[1:]), tuple(strategy.mb_y.shape[1:])))
                witness.numbers |= set(strategy.mb_y.unique().tolist())
                policies = [plugin.storage_policy for plugin in strategy.plugins if hasattr(plugin, "storage_policy")]
                witness.replayed = sum(len(policy.buffer) for policy in policies)

        return Riding()


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A network that learnt south from the champion, and what was seen on the way."""

    network: TunedNetwork
    witness: Witness


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One task's bench and its champion, which learnt north alone; updates by strategy, each made once."""

    bench: Any
    champion: Any
    made: dict[str, Update]

    def watched(self, name: str, **changed: Any) -> Update:
        """An update as its witness saw it; `changed` overrides training options."""
        from continual.learning import STRATEGIES

        witness, strategy = Witness(), STRATEGIES[name]
        with pytest.MonkeyPatch.context() as patch:
            more = replace(strategy, plugins=lambda context: [*strategy.plugins(context), witness.plugin()])
            patch.setitem(STRATEGIES, name, more)
            network = self.bench.learn(self.champion.network(), self.champion.request(name), **changed)
        return Update(network, witness)

    def update(self, name: str) -> Update:
        if name not in self.made:
            self.made[name] = self.watched(name)
        return self.made[name]

    def learnt(self, name: str, **changed: Any) -> Any:
        """Weights after an update under these options, by name."""
        return self.bench.learn(self.champion.network(), self.champion.request(name), **changed).state_dict()

    def score(self, network: TunedNetwork, site: str) -> float:
        """The task's metric on a site's test split."""
        return self.bench.score(network, site).value

    def answers(self, network: TunedNetwork) -> np.ndarray:
        """Probabilities on both test splits."""
        from continual.learning import probabilities

        samples = [sample for site in ("north", "south") for sample in self.bench.samples[site, Split.TEST]]
        return probabilities(network, self.bench.cache, [sample.digest for sample in samples], lambda _n: None)

    def tuned(self, name: str, network: TunedNetwork) -> set[str]:
        """Names of the weights that the strategy's tuning mode ever lets learn."""
        from continual.learning import STRATEGIES

        depths = network.depths()
        deepest = max(depths.values())
        return {weight for weight, depth in depths.items() if STRATEGIES[name].tuning.opening(depth, deepest) < 1}


@pytest.fixture(scope="session")
def images_case(toy: Any, champion: Any) -> Case:
    """Whole images in two classes."""
    return Case(toy, champion, {})


@pytest.fixture(scope="session")
def masks_case(dense: Any, dense_champion: Any) -> Case:
    """Tiles with a class for every pixel."""
    return Case(dense, dense_champion, {})


@pytest.fixture(scope="session", params=["images", "masks"])
def case(request: pytest.FixtureRequest) -> Case:
    """Every task in turn."""
    return request.getfixturevalue(f"{request.param}_case")


@pytest.fixture
def unmixed_twin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a strategy that is the named one but for its mixtures, and returns its name."""

    def made(name: str) -> str:
        from continual.learning import STRATEGIES

        twin = replace(STRATEGIES[name], name="unmixed", mixes=False)
        monkeypatch.setitem(STRATEGIES, twin.name, twin)
        return twin.name

    return made


@pytest.fixture
def penalty() -> Callable[..., float]:
    """What a strategy's plugins add to the loss of a network, in the context given."""

    def added(name: str, context: Any, network: TunedNetwork) -> float:
        import torch

        from continual.learning import STRATEGIES

        class Loop:
            loss = torch.zeros(())
            model = network

        loop = Loop()
        for plugin in STRATEGIES[name].plugins(context):
            plugin.before_backward(loop)
        return loop.loss.item()

    return added


class PowerCutError(Exception):
    """Ends an update from inside, between two steps."""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Cuts an update off: `after` listens to its progress, `error` is what it then ends with."""

    error: type[Exception] = PowerCutError

    def after(self, last: int) -> Callable[[int], None]:
        """A listener that cuts off after `last` steps; 0 never does."""
        done: list[int] = []

        def progress(steps: int) -> None:
            done.append(steps)
            if sum(done) == last:
                raise self.error

        return progress


@pytest.fixture
def power_cut() -> PowerCut:
    return PowerCut()
