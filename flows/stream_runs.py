"""One strategy over one stream of sites, from a fresh release to the last site; nothing is registered.

The benchmark and the references of `continual run` stand on it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from continual.domain.metrics import area_under_roc, balanced_accuracy, expected_calibration_error
from continual.domain.samples import Sample, Split
from continual.learning import (
    CLOSED_FORMS,
    STRATEGIES,
    AdaptedNetwork,
    ClosedForm,
    Importance,
    UpdateRequest,
    importance_of,
    learn,
    probabilities,
    softmax,
    targets_of,
)
from flows.adapter_context import AdapterContext
from flows.memory import choose_memory
from flows.progress import track

ScoresOf = Callable[[Sequence[Sample]], np.ndarray]
"""Probabilities of samples, shape (sample, class)."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a model says on every site's frozen test split: balanced accuracy, calibration error, area under ROC."""

    balanced_accuracy: Mapping[str, float]
    calibration_error: Mapping[str, float]
    auroc: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class StreamRun:
    """Rows in the order of the sites, and what they cost. `seconds` and `cpu_seconds` are those of learning alone."""

    sites: tuple[str, ...]
    rows: tuple[Row, ...]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    trainable_parameters: int
    replay_bytes: int


@dataclass(slots=True)
class _Pace:
    """Seconds on the wall and on the processors of one stretch of work."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> "_Pace":
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def classes_of(context: AdapterContext, sites: Sequence[str]) -> tuple[str, ...]:
    """Every label that a training sample of the sites carries, in alphabetical order."""
    return tuple(sorted({str(sample.label) for site in sites for sample in training(context, site)}))


def training(context: AdapterContext, site: str) -> list[Sample]:
    """A site's labelled training samples."""
    return context.registry.samples.list(site, Split.TRAIN, labelled=True)



@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A network after the first site, with what a strategy needs to go on from it; `network` is not to be changed."""

    network: AdaptedNetwork
    importance: Importance
    seconds: float
    cpu_seconds: float


def release_network(context: AdapterContext, site: str, classes: Sequence[str]) -> Start:
    """Learn the first site from nothing, as a release does."""
    fresh = training(context, site)
    options = context.options.training
    context.fill(fresh, options.views, f"{site}: activations")
    network = context.fresh_network(tuple(classes))
    with _Pace() as pace:
        learn(network, context.cache, UpdateRequest("naive", fresh), options, track(f"{site}: release", options.steps))
    measured = importance_of(network, context.cache, choose_memory(context, fresh), lambda _done: None)
    return Start(network, measured, pace.wall, pace.cpu)


def run_strategy(context: AdapterContext, strategy: str, sites: Sequence[str], start: Start) -> StreamRun:
    """The stream under an update strategy, from the given start; the memory follows the change plan."""
    wanted, network = STRATEGIES[strategy], deepcopy(start.network)
    seen, importance = training(context, sites[0]), start.importance
    memory = choose_memory(context, seen)
    rows, paces = [row_of(context, network_scores(context, network), network.classes, sites)], []
    for position, site in enumerate(sites[1:], start=1):
        fresh = training(context, site)
        context.fill([*fresh, *memory], context.options.training.views, f"{site}: activations")
        options = replace(context.options.training, seed=context.options.training.seed + position)
        past = seen if wanted.joint else ()
        request = UpdateRequest(strategy, fresh, memory, past, importance, network.classes)
        with _Pace() as pace:
            learn(network, context.cache, request, options, track(f"{strategy}: {site}", options.steps))
        paces.append(pace)
        seen = [*seen, *fresh]
        memory = choose_memory(context, [*memory, *fresh])
        if wanted.regularises:
            importance = importance_of(network, context.cache, memory, lambda _done: None)
        rows.append(row_of(context, network_scores(context, network), network.classes, sites))
    return StreamRun(
        sites=tuple(sites),
        rows=tuple(rows),
        seconds=(start.seconds, *(pace.wall for pace in paces)),
        cpu_seconds=(start.cpu_seconds, *(pace.cpu for pace in paces)),
        trainable_parameters=sum(weight.numel() for weight in network.trainable().values()),
        replay_bytes=sum(sample.size_bytes for sample in memory) if wanted.replays else 0,
    )


def run_closed_form(context: AdapterContext, name: str, sites: Sequence[str], classes: Sequence[str]) -> StreamRun:
    """The stream under a training-free classifier on the frozen features."""
    width = context.cache.features([training(context, sites[0])[0].digest]).shape[1]
    model = CLOSED_FORMS[name](width, len(classes), context.options.training.seed)
    rows, paces = [], []
    for position, site in enumerate(sites):
        with _Pace() as pace:
            model.learn(*_features(context, training(context, site), classes))
        validation = [sample for seen in sites[: position + 1] for sample in held_out(context, seen, Split.VALIDATION)]
        model.settle(*_features(context, validation, classes))
        paces.append(pace)
        rows.append(row_of(context, _closed_form_scores(context, model), classes, sites))
    return StreamRun(
        sites=tuple(sites),
        rows=tuple(rows),
        seconds=tuple(pace.wall for pace in paces),
        cpu_seconds=tuple(pace.cpu for pace in paces),
        trainable_parameters=0,
        replay_bytes=0,
    )


def held_out(context: AdapterContext, site: str, split: Split) -> list[Sample]:
    """A site's labelled samples of one split, their view 0 in the cache."""
    samples = context.registry.samples.list(site, split, labelled=True)
    context.fill(samples, 1, f"{site}: activations")
    return samples


def row_of(context: AdapterContext, scores_of: ScoresOf, classes: Sequence[str], sites: Sequence[str]) -> Row:
    """What a model's probabilities are worth on every site's test split."""
    accuracy, calibration, area = {}, {}, {}
    for site in sites:
        samples = held_out(context, site, Split.TEST)
        labels = [str(sample.label) for sample in samples]
        scores = scores_of(samples)
        predicted = [classes[index] for index in scores.argmax(axis=1)]
        accuracy[site] = balanced_accuracy(labels, predicted)
        calibration[site] = expected_calibration_error(scores.max(axis=1), np.array(labels) == np.array(predicted))
        area[site] = area_under_roc(labels, classes, scores)
    return Row(accuracy, calibration, area)


def network_scores(context: AdapterContext, network: AdaptedNetwork) -> ScoresOf:
    """A network's probabilities on samples."""
    return lambda samples: probabilities(network, context.cache, [sample.digest for sample in samples], lambda _n: None)


def _closed_form_scores(context: AdapterContext, model: ClosedForm) -> ScoresOf:
    return lambda samples: softmax(model.scores(context.cache.features([sample.digest for sample in samples])))


def _features(
    context: AdapterContext, samples: Sequence[Sample], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    context.fill(samples, 1, "activations")
    features = context.cache.features([sample.digest for sample in samples])
    return features, targets_of([str(sample.label) for sample in samples], classes)
