"""One strategy over one stream of sites, from its release to the last site; nothing is registered.

The benchmark stands on it, and so do the references of `continual run`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from continual.domain.adapters import Task
from continual.domain.metrics import area_under_roc, balanced_accuracy, expected_calibration_error
from continual.domain.samples import Sample, Split
from continual.learning import (
    CLOSED_FORMS,
    Checkpoints,
    Readout,
    TunedNetwork,
    UpdateRequest,
    WeightLine,
    fit_temperature,
    importance_of,
    learn,
    options_for,
    probabilities,
    softmax,
    strategy_named,
    targets_of,
)
from flows.progress import say, track
from flows.updates.adapter_context import AdapterContext
from flows.updates.evaluation import evaluate, labelled_samples, settle, stay_near
from flows.updates.memory import bytes_kept, choose_memory
from flows.updates.pace import Pace

# Nothing is kept here, but a batch that does not fit into memory is said.
ALOUD = Checkpoints(say=say)

ScoresOf = Callable[[Sequence[Sample]], np.ndarray]
"""Probabilities of samples, shape (sample, class)."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a model says on every site's frozen test split: its metric, calibration error, area under ROC (no masks)."""

    score: Mapping[str, float]
    calibration_error: Mapping[str, float]
    auroc: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class StreamRun:
    """Rows in the order of the sites, and what they cost.

    `seconds` and `cpu_seconds` are what it takes to learn each site: training, and what goes with it (the importance of
    weights before, how near the old weights to stay after; for a closed form its choice on validation images).
    Activations, temperature and the rows are left out. `trainable_parameters` are those that an update moves.
    `replay_bytes` is what has to be kept of the past: the memory where it is replayed or importance is measured on it,
    every training sample for `joint`, a closed form's sums; 0 for the others.
    """

    sites: tuple[str, ...]
    rows: tuple[Row, ...]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    trainable_parameters: int
    replay_bytes: int

    @property
    def matrix(self) -> list[list[float]]:
        """The task's metric, rows in the order of learning, columns in the order of the sites."""
        return [[row.score[site] for site in self.sites] for row in self.rows]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A network after the first site, and what it cost to learn; strategies go on from copies of it."""

    network: TunedNetwork
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def classes_of(context: AdapterContext, sites: Sequence[str]) -> tuple[str, ...]:
    """Every label that a training sample of the sites carries, in alphabetical order; a segmenting adapter's own."""
    if context.options.task is Task.SEGMENTATION:
        return context.options.classes
    return tuple(sorted({str(sample.label) for site in sites for sample in _training(context, site)}))


def fill_stream(context: AdapterContext, sites: Sequence[str], views: int) -> None:
    """Compute every activation that a run over the sites reads, with `views` views of what is trained on."""
    for site in sites:
        context.fill(_training(context, site), views, f"{site}: activations")
        held = [s for split in (Split.VALIDATION, Split.TEST) for s in labelled_samples(context, site, split)]
        context.fill(held, context.options.test_time_views, f"{site}: activations")


def release_network(context: AdapterContext, site: str, classes: Sequence[str], strategy: str = "naive") -> Start:
    """Learn the first site from nothing, as a release does."""
    fresh, options = _training(context, site), context.options.training
    context.fill(fresh, options.views, f"{site}: activations")
    network = context.fresh_network(tuple(classes))
    with Pace() as pace:
        progress = track(f"{site}: release", options.steps)
        learn(network, context.cache, UpdateRequest(strategy, fresh), options, progress, ALOUD)
    return Start(network, pace.wall, pace.cpu)


def run_strategy(context: AdapterContext, strategy: str, sites: Sequence[str], start: Start) -> StreamRun:
    """The stream under an update strategy, from the given start; the memory follows the change plan."""
    wanted, network = strategy_named(strategy), deepcopy(start.network)
    seen = _training(context, sites[0])
    memory = choose_memory(context, seen)
    rows, paces = [_network_row(context, network, sites, sites[:1])], [Pace(start.seconds, start.cpu_seconds)]
    for position, site in enumerate(sites[1:], start=1):
        fresh, past = _training(context, site), seen if wanted.joint else ()
        context.fill([*past, *fresh, *memory], context.options.training.views, f"{site}: activations")
        options = options_for(context.options.training, strategy, position, replayed=bool(memory))
        with Pace() as pace:
            importance = (
                importance_of(network, context.cache, memory, lambda _done: None) if wanted.regularises else None
            )
            request = UpdateRequest(strategy, fresh, memory, past, importance, network.classes)
            if context.options.task is Task.CLASSIFICATION:
                network.grow_head(sorted({str(sample.label) for sample in fresh}))
            line = WeightLine(network)
            progress = track(f"{strategy}: {site}", options.steps)
            learn(network, context.cache, request, options, progress, ALOUD)
            if wanted.stays:
                stay_near(context, line, network, sites[: position + 1])
        paces.append(pace)
        seen = [*seen, *fresh]
        memory = choose_memory(context, [*memory, *fresh])
        rows.append(_network_row(context, network, sites, sites[: position + 1]))
    kept = seen if wanted.joint else memory if wanted.replays or wanted.regularises else ()
    trainable = _learning_weights(network, wanted.tuning.opening)
    return _run(sites, rows, paces, trainable, sum(bytes_kept(context, kept).values()))


def run_closed_form(context: AdapterContext, name: str, sites: Sequence[str], classes: Sequence[str]) -> StreamRun:
    """The stream under a training-free classifier on the frozen features."""
    features, _ = _features(context, _training(context, sites[0])[:1], classes)
    model = CLOSED_FORMS[name](features.shape[1], len(classes), context.options.training.seed)
    rows, paces = [], []
    for position, site in enumerate(sites):
        fresh = _features(context, _training(context, site), classes)
        validated = [s for seen in sites[: position + 1] for s in labelled_samples(context, seen, Split.VALIDATION)]
        held = [sample for sample in validated if sample.label in classes]
        validation = _features(context, held, classes) if held else None
        with Pace() as pace:
            model.learn(*fresh)
            if validation is not None:
                model.settle(*validation)
            readout = model.readout()
        temperature = 1.0
        if validation is not None:
            cells = [(sample.site, sample.label) for sample in held]
            temperature = fit_temperature(readout.scores(validation[0]), validation[1], cells)
        paces.append(pace)
        rows.append(_row(context, _closed_form_scores(context, readout, temperature), classes, sites))
    return _run(sites, rows, paces, 0, model.stored_bytes())


def _learning_weights(network: TunedNetwork, opening: Callable[[int, int], float]) -> int:
    """How many weights ever learn; a tuning mode never opens the others (its `opening` there is infinite)."""
    depths = network.depths()
    deepest = max(depths.values())
    weights = network.trainable().items()
    return sum(weight.numel() for name, weight in weights if math.isfinite(opening(depths[name], deepest)))


def _run(
    sites: Sequence[str], rows: Sequence[Row], paces: Sequence[Pace], trainable: int, replay_bytes: int
) -> StreamRun:
    return StreamRun(
        sites=tuple(sites),
        rows=tuple(rows),
        seconds=tuple(pace.wall for pace in paces),
        cpu_seconds=tuple(pace.cpu for pace in paces),
        trainable_parameters=trainable,
        replay_bytes=replay_bytes,
    )


def _network_row(context: AdapterContext, network: TunedNetwork, sites: Sequence[str], learnt: Sequence[str]) -> Row:
    """A network's row, calibrated on the validation splits of the sites that it has learnt."""
    settle(context, network, learnt)
    if context.options.task is Task.SEGMENTATION:
        scored = [score for _, score in evaluate(context, network, sites, Split.TEST).values()]
        return Row(
            {score.site: score.value for score in scored},
            {score.site: score.calibration_error for score in scored},
            dict.fromkeys(sites),
        )

    def scores(samples: Sequence[Sample]) -> np.ndarray:
        return probabilities(network, context.cache, [sample.digest for sample in samples], lambda _done: None)

    return _row(context, scores, network.classes, sites)


def _row(context: AdapterContext, scores_of: ScoresOf, classes: Sequence[str], sites: Sequence[str]) -> Row:
    accuracy, calibration, area = {}, {}, {}
    for site in sites:
        samples = labelled_samples(context, site, Split.TEST)
        context.fill(samples, context.options.test_time_views, f"{site}: activations")
        labels, scores = [str(sample.label) for sample in samples], scores_of(samples)
        predicted = [classes[index] for index in scores.argmax(axis=1)]
        accuracy[site] = balanced_accuracy(labels, predicted)
        calibration[site] = expected_calibration_error(scores.max(axis=1), np.array(labels) == np.array(predicted))
        area[site] = area_under_roc(labels, classes, scores)
    return Row(accuracy, calibration, area)


def _closed_form_scores(context: AdapterContext, readout: Readout, temperature: float) -> ScoresOf:
    def scores(samples: Sequence[Sample]) -> np.ndarray:
        return softmax(readout.scores(context.cache.features([sample.digest for sample in samples])) / temperature)

    return scores


def _features(
    context: AdapterContext, samples: Sequence[Sample], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    context.fill(samples, 0, "frozen features")
    features = context.cache.features([sample.digest for sample in samples])
    return features, targets_of([str(sample.label) for sample in samples], classes)


def _training(context: AdapterContext, site: str) -> list[Sample]:
    return labelled_samples(context, site, Split.TRAIN)
