"""Strategies by name, and `auto`: a candidate of each that the change plan allows, and the choice between them."""

from collections.abc import Mapping, Sequence

import numpy as np

from continual.domain.adapters import AdapterVersion, Task
from continual.domain.change_plan import ChangePlan
from continual.domain.errors import ImageLetGoError, StreamError
from continual.domain.strategy_choice import CandidateFigures, Choice, choose
from continual.learning import CLOSED_FORMS, REFERENCES, STRATEGIES, update_strategy
from flows.progress import say
from flows.updates.adapter_context import AdapterContext, AdapterOptions
from flows.updates.candidates import Trained, order_learnt, train_candidate
from flows.updates.closed_form_candidates import fit_candidate
from flows.updates.evaluation import AS_GOOD, Samples, despite_erasures, validate, validation_samples
from flows.updates.gone_images import NEW_WORKSPACE

AUTO = "auto"
OF_IMAGES = ("replay_ewc", "replay_mix", "random_projection")
"""What a plan allows that is made for `auto`, where nobody says what."""
OF_MASKS_AND_VOLUMES = ("replay_ewc", "replay_lwf")
"""The same where closed forms make no versions, and where mixtures have no meaning (masks) or were not tried."""

Scores = Mapping[str, float]


def check_strategies(options: AdapterOptions, asked: str | None) -> None:
    """Raise StreamError unless the change plan allows ways to update such an adapter, and `asked`, if any, is on it.

    And, as `check_kept` does, where one of them asks for what the plan does not keep.
    """
    allowed = options.plan.strategies
    names = (*allowed, *([asked] if asked else []))
    known = (*STRATEGIES, *CLOSED_FORMS)
    for name in names:
        if name in REFERENCES:
            update_strategy(name)
    if asked not in (None, AUTO, *known):
        raise StreamError(f"no strategy {asked!r}; choose one of {', '.join((*known, AUTO))}")
    for name in allowed:
        if name not in known:
            raise StreamError(f"the change plan allows {name!r}, which is no strategy; choose of {', '.join(known)}")
    closed = [name for name in names if name in CLOSED_FORMS]
    if closed and options.task is Task.SEGMENTATION:
        raise StreamError(
            f"strategy {closed[0]!r} classifies whole images and gives no masks; choose one of {', '.join(STRATEGIES)}"
        )
    if closed and options.volume is not None:
        raise StreamError(
            f"strategy {closed[0]!r} makes versions of images only; for volumes choose one of {', '.join(STRATEGIES)}"
        )
    check_views(options, names)
    check_kept(options.plan, names)
    if asked not in (None, AUTO, *allowed):
        raise StreamError(
            f"strategy {asked!r} is not on the change plan, which allows {', '.join(allowed)}; choose one of these, or "
            "release an adapter of its own with --allow"
        )


def check_views(options: AdapterOptions, names: Sequence[str]) -> None:
    """Raise StreamError where a closed form is to answer from several views: it answers from features of one."""
    closed = [name for name in names if name in CLOSED_FORMS]
    if closed and options.test_time_views > 1:
        raise StreamError(
            f"strategy {closed[0]!r} answers from 1 view of an image, and answers are to be means over "
            f"{options.test_time_views}; leave out --test-views or choose one of {', '.join(STRATEGIES)}"
        )


def check_mixing(options: AdapterOptions, names: Sequence[str]) -> None:
    """Raise StreamError where masks are to be mixed: every place of a mask has an answer of its own."""
    mixing = [name for name in names if name in STRATEGIES and STRATEGIES[name].mixes]
    if mixing and options.task is Task.SEGMENTATION:
        raise StreamError(
            f"strategy {mixing[0]!r} mixes whole images, which masks do not allow; choose replay_lwf "
            "or replay_ewc, which mix nothing"
        )


def check_kept(plan: ChangePlan, names: Sequence[str]) -> None:
    """Raise StreamError or ImageLetGoError where one of the strategies asks for what the change plan does not keep."""
    for strategy in (STRATEGIES[name] for name in names if name in STRATEGIES):
        if strategy.regularises and plan.replay_samples == 0:
            raise StreamError(
                f"strategy {strategy.name!r} measures the importance of weights on the replay memory, which keeps 0 "
                "samples; give --replay-samples above 0, or choose lwf"
            )
        if strategy.joint and not plan.keep_images:
            raise ImageLetGoError(
                f"strategy {strategy.name!r} learns from all past images, and the change plan keeps 0 (keep_images "
                f"false); choose a strategy that replays, or {NEW_WORKSPACE} and keep images"
            )


def plan_for(asked: str | None, adapter_task: Task, *, volumes: bool, test_time_views: int = 1) -> tuple[str, ...]:
    """What a plan allows that is made by asking for a strategy: no update shall be outside the plan it begins with."""
    if asked != AUTO:
        return (asked,) if asked else ChangePlan().strategies
    if adapter_task is not Task.CLASSIFICATION or volumes:
        return OF_MASKS_AND_VOLUMES
    return tuple(name for name in OF_IMAGES if name not in CLOSED_FORMS or test_time_views == 1)


def candidate_of(
    context: AdapterContext, champion: AdapterVersion | None, site: str, strategy: str
) -> tuple[Trained, Choice | None]:
    """The candidate of a strategy; of `auto` the one chosen on validation data, with the choice.

    Raises StreamError when the strategy is unknown or there are too few labels.
    """
    plan = context.options.plan
    if strategy != AUTO:
        return _trained(context, champion, site, strategy), None
    first, sites = plan.strategies[0], order_learnt(champion, site)
    held = _judged_by(context, champion, sites)
    if not any(held.values()):
        only = _trained(context, champion, site, first)
        reason = f"No site has a labelled validation sample to choose by: {first} is the change plan's first."
        return only, Choice(first, reason, AS_GOOD[context.options.task], plan.past_site_drop, ())
    # What all of them are asked about is nobody's cost.
    despite_erasures(lambda: _fill(context, _still_there(context, held)))
    before = validate(context, context.network_of(champion), _past(held, champion)) if champion else {}
    found: dict[str, Trained] = {}
    figures: list[CandidateFigures] = []
    for name in dict.fromkeys(plan.strategies):
        found[name] = _trained(context, champion, site, name)
        figures.append(_figures(context, found[name], held, before))
        say(f"{site}: {name} has validation mean {figures[-1].mean:.3f} for {figures[-1].cpu_seconds:.1f} CPU seconds")
    choice = choose(figures, AS_GOOD[context.options.task], plan.past_site_drop)
    say(f"{site}: {choice.reason}")
    return found[choice.chosen], choice


def _trained(context: AdapterContext, champion: AdapterVersion | None, site: str, strategy: str) -> Trained:
    if strategy in CLOSED_FORMS:
        return fit_candidate(context, champion, site, strategy)
    return train_candidate(context, champion, site, strategy)


def _judged_by(context: AdapterContext, champion: AdapterVersion | None, sites: Sequence[str]) -> Samples:
    """Validation samples by site, listed once for all candidates; at past sites of the champion's classes, as the gate
    reads them.
    """
    found = validation_samples(context, sites)
    if champion is None or context.options.task is Task.SEGMENTATION:
        return found
    known = {site: [one for one in found[site] if one.label in champion.classes] for site in champion.trained_on}
    return found | known


def _fill(context: AdapterContext, samples: Samples) -> None:
    every = [one for group in samples.values() for one in group]
    context.fill(every, context.options.test_time_views, "validation: activations")


def _past(samples: Samples, champion: AdapterVersion) -> Samples:
    return {site: samples[site] for site in champion.trained_on}


def _figures(context: AdapterContext, trained: Trained, held: Samples, before: Scores) -> CandidateFigures:
    after = despite_erasures(lambda: validate(context, trained.network, _still_there(context, held)))
    changes = {site: after[site] - score for site, score in before.items() if site in after}
    worst = min(changes, key=changes.__getitem__, default=None)
    return CandidateFigures(
        strategy=trained.strategy,
        validation=after,
        mean=float(np.mean(list(after.values()))),
        worst_site=worst,
        worst_change=None if worst is None else changes[worst],
        seconds=trained.learn_seconds,
        cpu_seconds=trained.cpu_seconds,
    )


def _still_there(context: AdapterContext, samples: Samples) -> Samples:
    """What was listed, without those who were erased since."""
    now = {site: {one.digest for one in group} for site, group in validation_samples(context, list(samples)).items()}
    return {site: [one for one in group if one.digest in now[site]] for site, group in samples.items()}
