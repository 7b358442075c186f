"""From a champion and a site's new samples to a gated, registered version."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.adapters import CHAMPION, AdapterVersion, GateDecision, SiteOutcomes, Task, VersionDraft
from continual.domain.digests import sha256_json
from continual.domain.errors import StreamError
from continual.domain.metrics import METRICS, chance_level
from continual.domain.samples import Sample, Split, label_counts
from continual.domain.strategy_choice import Choice
from continual.learning import (
    STRATEGIES,
    Checkpoints,
    ClosedFormNetwork,
    DenseScore,
    Importance,
    SiteScore,
    TunedNetwork,
    UpdateRequest,
    VersionNetwork,
    WeightLine,
    forget_training_state,
    importance_of,
    learn,
    options_for,
    read_importance,
    training_environment,
    version_record,
    write_adapter,
    write_closed_form,
)
from flows.progress import say, track
from flows.updates.adapter_context import AdapterContext
from flows.updates.evaluation import (
    Evaluation,
    Stay,
    check_masks,
    despite_erasures,
    evaluate,
    evaluate_on,
    labelled_samples,
    settle,
    split_digest,
    stay_near,
)
from flows.updates.experiences import new_labels, new_samples
from flows.updates.learnt import has_learnt, learnt_record
from flows.updates.letting_go import learnable
from flows.updates.lineage import learnt_samples, newest_of_lora
from flows.updates.memory import check_memory, choose_memory
from flows.updates.memory_content import remembered_by
from flows.updates.pace import Pace
from registry import run_gate

Tested = Mapping[str, tuple[SiteOutcomes, SiteScore | DenseScore]]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network after learning one site, before anyone judged it; it also saw `replayed` and `past` samples.

    `start` is the number of the version whose weights or sums it goes on from, None for a beginning; a closed form has
    `sums` to go on from, a LoRA network `importance`.
    """

    site: str
    strategy: str
    network: VersionNetwork
    parent: AdapterVersion | None
    experience: tuple[Sample, ...]
    memory: tuple[Sample, ...]
    importance: Importance
    learn_seconds: float
    replayed: int = 0
    past: int = 0
    stay: Stay = field(default_factory=Stay)
    start: int | None = None
    cpu_seconds: float = 0.0
    steps: int = 0
    held: frozenset[int] = frozenset()
    """Batches of the site that were held when its samples were listed."""
    sums: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Sites in the order learnt, the newest last."""
        return order_learnt(self.parent, self.site)


def order_learnt(parent: AdapterVersion | None, newest: str) -> tuple[str, ...]:
    """The parent's sites in the order learnt, then the newest."""
    earlier = parent.trained_on if parent else ()
    return (*(site for site in earlier if site != newest), newest)


def train_candidate(context: AdapterContext, champion: AdapterVersion | None, site: str, strategy: str) -> Trained:
    """Learn a site's new training samples from the champion.

    Over a closed-form champion the weights start from the nearest ancestor that has LoRA weights, and what was learnt
    since then is learnt with the new samples. Raises StreamError when there are too few labels for the change plan.
    """
    held, start = context.registry.holds.held(site), newest_of_lora(context, champion)
    experience = labelled_experience(context, champion, site)
    remembered = learnable(context, remembered_by(context.registry, champion))
    past = learnt_samples(context, champion) if STRATEGIES[strategy].joint else []
    # Without images, what is left of them can be learnt: those that the memory remembers.
    missed = [] if past or start is champion else learnable(context, learnt_samples(context, champion, start))
    seen = [*missed, *experience, *remembered, *past]
    context.fill(seen, context.options.training.views, f"{site}: activations")
    network, importance = _start(context, start, classes_after(context, champion, seen))
    taught = start.classes if start else ()
    # What the start never learnt is among what was missed: to replay it would teach what the start gets wrong.
    replayed = [sample for sample in remembered if has_learnt(start, sample)]
    request = UpdateRequest(strategy, [*missed, *experience], replayed, past, importance or None, taught)
    place = champion.number if champion else 0
    options = options_for(context.options.training, strategy, place, replayed=bool(replayed))
    check_masks(context, order_learnt(champion, site))
    memory = choose_memory(context, [*remembered, *experience])
    if start is None or STRATEGIES[strategy].regularises:
        check_memory(context, memory, experience)
    line, stay = WeightLine(network), Stay()
    progress = track(f"{site}: {strategy}", options.steps)
    spent = learn(network, context.cache, request, options, progress, _checkpoints(context, site, strategy))
    with Pace() as after:
        if start is not None and STRATEGIES[strategy].stays:
            stay = stay_near(context, line, network, order_learnt(champion, site))
        importance = _measured(context, network, site, memory)
    return Trained(
        site=site,
        strategy=strategy,
        network=network,
        parent=champion,
        experience=tuple(experience),
        memory=memory,
        importance=importance,
        learn_seconds=spent.wall + after.wall,
        replayed=len(replayed) if STRATEGIES[strategy].replays else 0,
        past=len(past) + len(missed),
        stay=stay,
        start=start.number if start else None,
        cpu_seconds=spent.cpu + after.cpu,
        steps=options.steps,
        held=held,
    )


def _measured(context: AdapterContext, network: TunedNetwork, site: str, memory: Sequence[Sample]) -> Importance:
    """Importance of the network's weights; none where the change plan allows no strategy that would ever ask for it."""
    allowed = [STRATEGIES[name] for name in context.options.plan.strategies if name in STRATEGIES]
    if not any(strategy.regularises for strategy in allowed):
        return {}
    return importance_of(network, context.cache, memory, track(f"{site}: weight importance", len(memory)))


def register_candidate(context: AdapterContext, trained: Trained, choice: Choice | None = None) -> AdapterVersion:
    """Judge a trained network by the gate, register it as a version and move the alias if it was accepted.

    `choice` is how it was chosen among others, kept in its record.
    """
    started = time.perf_counter()
    # Before the test split is looked at, so that what is measured there is what will be served.
    despite_erasures(lambda: settle(context, trained.network, trained.trained_on, f"{trained.site}: temperature"))
    tested, before, splits = despite_erasures(lambda: _tested(context, trained))
    past = trained.parent.trained_on if trained.parent else ()
    asked, rivals = (_outcomes(each, trained.parent) for each in (tested, before))
    gate = run_gate(asked, rivals, past, context.options.plan)
    seconds = {"learn": trained.learn_seconds, "evaluate": time.perf_counter() - started}
    record = _record(context, trained, tested, gate) | {"tested": splits}
    costs: dict[str, Any] = {"seconds": seconds}
    if choice is not None:
        record["choice"], costs["choice"] = choice.without_costs(), choice.as_record()
    draft = VersionDraft(
        adapter=context.name,
        parent=trained.parent.number if trained.parent else None,
        strategy=trained.strategy,
        backbone_digest=context.weights.digest,
        trained_on=trained.trained_on,
        classes=trained.network.classes,
        metric=METRICS[context.options.task],
        metrics={site: score.value for site, (_, score) in tested.items()},
        record=record | costs,
    )
    context.registry.artifacts.put(context.weights.data)
    # Without the seconds: an update that was killed after this point then registers the same folder, not a second one.
    version = context.registry.adapters.register(draft, _folder(trained, record), context.workplace.actor)
    reason = f"learnt {trained.site} with {trained.strategy}"
    judged = context.registry.adapters.promote(
        context.name, version.number, gate, CHAMPION, context.workplace.actor, reason
    )
    for strategy in {trained.strategy, *(each.strategy for each in (choice.candidates if choice else ()))}:
        forget_training_state(_state_path(context, trained.site, strategy))
    return judged


def _tested(
    context: AdapterContext, trained: Trained
) -> tuple[dict[str, Evaluation], dict[str, Evaluation], dict[str, str]]:
    """What candidate and champion say on the test splits, and digests of these.

    They are listed once: no intake parts what both are asked.
    """
    samples = {site: labelled_samples(context, site, Split.TEST) for site in trained.trained_on}
    splits = {site: split_digest(held) for site, held in samples.items()}
    tested = evaluate_on(context, trained.network, samples, Split.TEST)
    if trained.parent is None:
        return tested, {}, splits
    return tested, evaluate_on(context, context.network_of(trained.parent), samples, Split.TEST), splits


def _checkpoints(context: AdapterContext, site: str, strategy: str) -> Checkpoints:
    settings = context.workplace.settings
    return Checkpoints(
        _state_path(context, site, strategy), settings.checkpoint_seconds, lambda message: say(f"{site}: {message}")
    )


def _state_path(context: AdapterContext, site: str, strategy: str) -> Path:
    """One file for each thing that can be under way at once; what is in it says which update it belongs to."""
    place = sha256_json([context.name, site, strategy])
    return context.workplace.settings.training_folder() / f"{place[:32]}.safetensors"


def labelled_experience(context: AdapterContext, champion: AdapterVersion | None, site: str) -> list[Sample]:
    """A site's labelled training samples that the champion has not learnt.

    StreamError when they are too few, or when there is nothing that the gate could judge the update by.
    """
    experience = _labelled(context, champion, site)
    shortage = _shortage(context, experience)
    if shortage is not None:
        raise StreamError(f"site {site} has {shortage}; send labels, or release with a lower --minimum-labelled")
    unjudged = _unjudged(context, champion, site)
    if unjudged is not None:
        raise StreamError(unjudged)
    return experience


def trouble_with_labels(context: AdapterContext, champion: AdapterVersion, site: str) -> str | None:
    """Why a site's new labels carry no update: too few, some of classes that the change plan does not allow, or none
    that the gate could judge it by.
    """
    experience = _labelled(context, champion, site)
    return (
        _shortage(context, experience)
        or _forbidden(context, champion, experience)
        or _unjudged(context, champion, site)
    )


def _unjudged(context: AdapterContext, champion: AdapterVersion | None, site: str) -> str | None:
    """Which site the gate could not judge after this update; at a past one it reads the champion's classes."""
    for name in order_learnt(champion, site):
        held = labelled_samples(context, name, Split.TEST)
        if champion is not None and name in champion.trained_on and context.options.task is Task.CLASSIFICATION:
            held = [sample for sample in held if sample.label in champion.classes]
        if not held:
            return (
                f"site {name} has 0 labelled test images, and no update is put in service that was not judged at every "
                "site learnt; send labels of test images of that site, or its images with another split"
            )
    return None


def _labelled(context: AdapterContext, champion: AdapterVersion | None, site: str) -> list[Sample]:
    task, arrived = context.options.task, new_samples(context, champion, site)
    return [sample for sample in arrived if sample.split is Split.TRAIN and sample.labelled_for(task)]


def _shortage(context: AdapterContext, experience: Sequence[Sample]) -> str | None:
    fewest = context.options.plan.minimum_labelled
    if len(experience) >= fewest:
        return None
    return f"{len(experience)} new labelled training samples, the change plan needs {fewest}"


def classes_after(
    context: AdapterContext, champion: AdapterVersion | None, samples: Sequence[Sample]
) -> tuple[str, ...]:
    """The champion's classes, then the samples' new ones; StreamError where the change plan does not allow new ones.

    An adapter of masks has the classes of its release.
    """
    if champion is None:
        return context.options.classes or tuple(label_counts(samples))
    forbidden = _forbidden(context, champion, samples)
    if forbidden is not None:
        raise StreamError(forbidden)
    return (*champion.classes, *new_labels(champion, samples))


def _forbidden(context: AdapterContext, champion: AdapterVersion, samples: Sequence[Sample]) -> str | None:
    unknown = new_labels(champion, samples)
    if not unknown or context.options.plan.new_classes:
        return None
    return (
        f"labels {list(unknown)} are not among the adapter's classes {list(champion.classes)}; correct the labels, "
        "or allow new classes with --new-classes"
    )


def _start(
    context: AdapterContext, start: AdapterVersion | None, classes: Sequence[str]
) -> tuple[TunedNetwork, Importance]:
    """The network that an update starts from: a stored version's, its head grown to the classes, or a fresh one."""
    if start is None:
        return context.fresh_network(classes), {}
    network = context.lora_network_of(start)
    network.grow_head(classes)
    return network, read_importance(context.registry.adapters.files(start), context.device)


def _folder(trained: Trained, record: Mapping[str, Any]) -> dict[str, bytes]:
    if isinstance(trained.network, ClosedFormNetwork):
        return write_closed_form(trained.network, trained.sums, record)
    return write_adapter(trained.network, trained.importance, record)


def _chance(outcome: SiteOutcomes) -> float:
    return outcome.chance if outcome.scores else chance_level(outcome.labels)


def _outcomes(tested: Tested, parent: AdapterVersion | None) -> list[SiteOutcomes]:
    """Outcomes as the gate reads them: at a past site, of the classes that the champion knows.

    Of a class that it never heard of it says nothing right, and what a candidate gains there would pay for a loss.
    """
    return [
        outcome.of_classes(parent.classes) if parent and outcome.site in parent.trained_on else outcome
        for outcome, _ in tested.values()
    ]


def _record(context: AdapterContext, trained: Trained, tested: Tested, gate: GateDecision) -> dict[str, Any]:
    parent = trained.parent
    validated = evaluate(context, trained.network, trained.trained_on, Split.VALIDATION)
    last = max(sample.batch for sample in trained.experience)
    # Held then or now, and not learnt: a batch may be held or released while its site is being learnt.
    held = trained.held | context.registry.holds.held(trained.site)
    held -= {sample.batch for sample in trained.experience}
    return {
        "adapter": context.name,
        "strategy": trained.strategy,
        "parent": parent.number if parent else None,
        "start": trained.start,
        "trained_on": list(trained.trained_on),
        "network": version_record(trained.network, context.weights, context.options.image_size),
        "options": context.options.as_record(),
        "scores": {site: asdict(score) for site, (_, score) in tested.items()},
        "validation": {site: score.value for site, (_, score) in validated.items()},
        "chance": {site: _chance(outcome) for site, (outcome, _) in tested.items()},
        "gate": asdict(gate),
        "stay": asdict(trained.stay),
        "memory": [[sample.site, sample.digest] for sample in trained.memory],
        **learnt_record(parent, trained.site, last, held),
        "replayed": trained.replayed,
        "steps": trained.steps,
        "past": trained.past,
        "experience": {
            "site": trained.site,
            "samples": len(trained.experience),
            "digest": sha256_json(sorted(sample.digest for sample in trained.experience)),
        },
        "environment": training_environment(context.device),
    }
