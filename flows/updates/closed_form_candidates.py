"""A closed-form candidate: added to the champion's sums where it has such, else fitted on all that was ever learnt."""

from collections.abc import Sequence

import numpy as np

from continual.domain.adapters import CLOSED_FORM, AdapterVersion, kind_of
from continual.domain.samples import Sample, Split
from continual.learning import CLOSED_FORMS, ClosedForm, read_closed_form_learner, targets_of
from flows.progress import track
from flows.updates.adapter_context import AdapterContext
from flows.updates.candidates import Trained, classes_after, labelled_experience, order_learnt
from flows.updates.evaluation import labelled_samples
from flows.updates.letting_go import learnable
from flows.updates.lineage import learnt_samples
from flows.updates.memory import choose_memory
from flows.updates.memory_content import remembered_by
from flows.updates.pace import Pace


def fit_candidate(context: AdapterContext, champion: AdapterVersion | None, site: str, method: str) -> Trained:
    """Learn a site's new training samples by the closed form `method`.

    A champion of the same method is continued from its sums alone, no training image of the past is asked for. The
    sites of any other champion are learnt anew, from frozen features of the training samples that are still stored.
    Raises StreamError when there are too few labels for the change plan.
    """
    on_hold = context.registry.holds.held(site)
    experience = labelled_experience(context, champion, site)
    remembered = learnable(context, remembered_by(context.registry, champion))
    continued = champion if _is_of(champion, method) else None
    past = [] if continued else learnt_samples(context, champion)
    classes = classes_after(context, champion, [*past, *experience])
    trained_on = order_learnt(champion, site)
    held = [s for name in trained_on for s in labelled_samples(context, name, Split.VALIDATION) if s.label in classes]
    context.fill([*past, *experience, *held], 0, f"{site}: frozen features")
    with Pace() as pace:
        learner = _beginning(context, continued, experience, method, classes)
        _learn(context, learner, [*past, *experience], classes, site)
        if held:
            learner.settle(*_features(context, held, classes))
        readout = learner.readout()
    return Trained(
        site=site,
        strategy=method,
        network=context.closed_form_network(method, classes, readout),
        parent=champion,
        experience=tuple(experience),
        # Not for itself: a later LoRA update over this version replays it.
        memory=choose_memory(context, [*remembered, *experience]),
        importance={},
        learn_seconds=pace.wall,
        cpu_seconds=pace.cpu,
        past=len(past),
        start=continued.number if continued else None,
        sums=learner.sums(),
        held=on_hold,
    )


def _is_of(champion: AdapterVersion | None, method: str) -> bool:
    if champion is None or kind_of(champion.record) != CLOSED_FORM:
        return False
    return bool(champion.record["network"]["method"] == method)


def _beginning(
    context: AdapterContext,
    continued: AdapterVersion | None,
    experience: Sequence[Sample],
    method: str,
    classes: Sequence[str],
) -> ClosedForm:
    if continued is None:
        width = context.cache.features([experience[0].digest]).shape[1]
        return CLOSED_FORMS[method](width, len(classes), context.options.training.seed)
    learner = read_closed_form_learner(context.registry.adapters.files(continued))
    learner.grow(len(classes))
    return learner


def _learn(
    context: AdapterContext, learner: ClosedForm, samples: Sequence[Sample], classes: Sequence[str], site: str
) -> None:
    advance = track(f"{site}: sums", len(samples))
    # Site by site: random features of everything at once would not fit where a single site's do.
    for name in dict.fromkeys(sample.site for sample in samples):
        group = [sample for sample in samples if sample.site == name]
        learner.learn(*_features(context, group, classes))
        advance(len(group))


def _features(
    context: AdapterContext, samples: Sequence[Sample], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    features = context.cache.features([sample.digest for sample in samples])
    return features, targets_of([str(sample.label) for sample in samples], classes)
