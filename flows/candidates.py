"""From a champion and a site's new samples to a gated, registered version."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from continual.domain.adapters import CHAMPION, AdapterVersion, GateDecision, SiteOutcomes, VersionDraft
from continual.domain.digests import sha256_json
from continual.domain.errors import StreamError
from continual.domain.metrics import BALANCED_ACCURACY, chance_level
from continual.domain.samples import Sample, Split, label_counts
from continual.learning import (
    STRATEGIES,
    AdaptedNetwork,
    Importance,
    SiteScore,
    UpdateRequest,
    WeightLine,
    calibrate,
    importance_of,
    learn,
    network_record,
    read_importance,
    training_environment,
    write_adapter,
)
from flows.adapter_context import AdapterContext
from flows.evaluation import Stay, evaluate, labelled_samples, stay_near
from flows.letting_go import learnable
from flows.memory import choose_memory, remembered_by
from flows.progress import track
from flows.windows import new_labels, new_samples
from registry import run_gate

Tested = Mapping[str, tuple[SiteOutcomes, SiteScore]]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network after learning one site, before anyone judged it; it also saw `replayed` and `past` samples."""

    site: str
    strategy: str
    network: AdaptedNetwork
    parent: AdapterVersion | None
    experience: tuple[Sample, ...]
    memory: tuple[Sample, ...]
    importance: Importance
    learn_seconds: float
    replayed: int = 0
    past: int = 0
    stay: Stay = field(default_factory=Stay)

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Sites in the order learnt, the newest last."""
        return _in_order(self.parent, self.site)


def _in_order(parent: AdapterVersion | None, newest: str) -> tuple[str, ...]:
    earlier = parent.trained_on if parent else ()
    return (*(site for site in earlier if site != newest), newest)


def train_candidate(context: AdapterContext, champion: AdapterVersion | None, site: str, strategy: str) -> Trained:
    """Learn a site's new training samples from the champion.

    Raises StreamError when there are too few labels for the change plan.
    """
    experience = [s for s in new_samples(context, champion, site) if s.split is Split.TRAIN and s.label is not None]
    _check_experience(context, site, experience, strategy)
    remembered = learnable(context, remembered_by(context.registry, champion))
    past = _past(context, champion) if STRATEGIES[strategy].joint else []
    context.fill([*experience, *remembered, *past], context.options.training.views, f"{site}: activations")
    network, importance = _start(context, champion, [*experience, *remembered, *past])
    taught = champion.classes if champion else ()
    request = UpdateRequest(strategy, experience, remembered, past, importance or None, taught)
    # Each update draws its own batches; the seed still depends only on the plan and the place in the lineage.
    options = replace(
        context.options.training, seed=context.options.training.seed + (champion.number if champion else 0)
    )
    line = WeightLine(network)
    seconds = learn(network, context.cache, request, options, track(f"{site}: {strategy}", options.steps))
    stay = Stay()
    if champion is not None and STRATEGIES[strategy].stays:
        stay = stay_near(context, line, network, _in_order(champion, site))
    memory = choose_memory(context, [*remembered, *experience])
    measured = importance_of(network, context.cache, memory, track(f"{site}: weight importance", len(memory)))
    return Trained(
        site=site,
        strategy=strategy,
        network=network,
        parent=champion,
        experience=tuple(experience),
        memory=memory,
        importance=measured,
        learn_seconds=seconds,
        replayed=len(remembered) if STRATEGIES[strategy].replays else 0,
        past=len(past),
        stay=stay,
    )


def register_candidate(context: AdapterContext, trained: Trained) -> AdapterVersion:
    """Judge a trained network by the gate, register it as a version and move the alias if it was accepted."""
    started = time.perf_counter()
    _calibrate(context, trained)
    tested = evaluate(context, trained.network, trained.trained_on, Split.TEST)
    before = {}
    if trained.parent is not None:
        before = evaluate(context, context.network_of(trained.parent), trained.trained_on, Split.TEST)
    past = trained.parent.trained_on if trained.parent else ()
    gate = run_gate(_outcomes(tested), _outcomes(before), past, context.options.plan)
    seconds = {"learn": trained.learn_seconds, "evaluate": time.perf_counter() - started}
    record = _record(context, trained, tested, gate)
    draft = VersionDraft(
        adapter=context.name,
        parent=trained.parent.number if trained.parent else None,
        strategy=trained.strategy,
        backbone_digest=context.weights.digest,
        trained_on=trained.trained_on,
        classes=trained.network.classes,
        metric=BALANCED_ACCURACY,
        metrics={site: score.balanced_accuracy for site, (_, score) in tested.items()},
        record=record | {"seconds": seconds},
    )
    context.registry.artifacts.put(context.weights.data)
    # Without the seconds: an update that was killed after this point then registers the same folder, not a second one.
    files = write_adapter(trained.network, trained.importance, record)
    version = context.registry.adapters.register(draft, files, context.workplace.actor)
    reason = f"learnt {trained.site} with {trained.strategy}"
    return context.registry.adapters.promote(
        context.name, version.number, gate, CHAMPION, context.workplace.actor, reason
    )


def _calibrate(context: AdapterContext, trained: Trained) -> None:
    """Before the test split is looked at, so that what is measured there is what will be served."""
    held = [sample for site in trained.trained_on for sample in labelled_samples(context, site, Split.VALIDATION)]
    context.fill(held, 1, f"{trained.site}: activations")
    calibrate(trained.network, context.cache, held, track(f"{trained.site}: temperature", len(held)))


def _check_experience(context: AdapterContext, site: str, experience: Sequence[Sample], strategy: str) -> None:
    fewest = context.options.plan.minimum_labelled
    if len(experience) < fewest:
        raise StreamError(
            f"site {site} has {len(experience)} new labelled training samples, the change plan needs {fewest}; "
            "send labels, or release with a lower --minimum-labelled"
        )
    if strategy not in STRATEGIES:
        raise StreamError(f"no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")


def _start(
    context: AdapterContext, champion: AdapterVersion | None, samples: Sequence[Sample]
) -> tuple[AdaptedNetwork, Importance]:
    """The network that an update starts from: the champion's, its head grown by new labels where the plan allows it."""
    if champion is None:
        return context.fresh_network(tuple(label_counts(samples))), {}
    unknown = new_labels(champion, samples)
    if unknown and not context.options.plan.new_classes:
        raise StreamError(
            f"labels {list(unknown)} are not among the adapter's classes {list(champion.classes)}; correct the labels, "
            "or allow new classes with --new-classes"
        )
    network = context.network_of(champion)
    network.grow_head(unknown)
    return network, read_importance(context.registry.adapters.files(champion), context.device)


def _past(context: AdapterContext, champion: AdapterVersion | None) -> list[Sample]:
    sites = champion.trained_on if champion else ()
    return [sample for site in sites for sample in labelled_samples(context, site, Split.TRAIN)]


def _outcomes(tested: Tested) -> list[SiteOutcomes]:
    return [outcome for outcome, _ in tested.values()]


def _record(context: AdapterContext, trained: Trained, tested: Tested, gate: GateDecision) -> dict[str, Any]:
    parent = trained.parent
    validated = evaluate(context, trained.network, trained.trained_on, Split.VALIDATION)
    batches = dict(parent.record["learnt_batches"]) if parent else {}
    batches[trained.site] = max(sample.batch for sample in trained.experience)
    return {
        "adapter": context.name,
        "strategy": trained.strategy,
        "parent": parent.number if parent else None,
        "trained_on": list(trained.trained_on),
        "network": network_record(trained.network, context.weights, context.options.image_size),
        "options": context.options.as_record(),
        "scores": {site: asdict(score) for site, (_, score) in tested.items()},
        "validation": {site: score.balanced_accuracy for site, (_, score) in validated.items()},
        "chance": {site: chance_level(outcome.labels) for site, (outcome, _) in tested.items()},
        "gate": asdict(gate),
        "stay": asdict(trained.stay),
        "memory": [[sample.site, sample.digest] for sample in trained.memory],
        "learnt_batches": batches,
        "replayed": trained.replayed,
        "past": trained.past,
        "experience": {
            "site": trained.site,
            "samples": len(trained.experience),
            "digest": sha256_json(sorted(sample.digest for sample in trained.experience)),
        },
        "environment": training_environment(context.device),
    }
