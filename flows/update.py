"""Learn one site's new samples, judge the result, register it, and move the champion if the gate accepts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from continual.domain.adapters import AdapterState, AdapterVersion
from continual.domain.digests import sha256_json
from continual.domain.drift import Action, DriftReport
from continual.domain.errors import SettingsError, StreamError
from continual.domain.samples import Split
from continual.domain.update_pace import JudgedUpdate, update_pause
from continual.learning import resolve_backbone, update_strategy
from flows.drift.looks import look_at_site, look_at_unseen
from flows.every_site import sites_to_visit, visit_each
from flows.progress import say
from flows.requests import Release
from flows.updates.adapter_context import (
    AdapterContext,
    champion_of,
    check_release,
    context_of,
    options_from_record,
    options_kept,
)
from flows.updates.candidates import register_candidate, trouble_with_labels
from flows.updates.choice import AUTO, candidate_of, check_kept, check_mixing, check_strategies
from flows.updates.experiences import new_labels, new_samples
from flows.updates.learnt import has_learnt
from flows.updates.letting_go import let_go
from flows.updates.occasions import LEARN_ON, MOST_UPDATES, Occasion, judged_updates
from flows.workplace import open_workplace
from registry import JUDGED

LEARN_NEW_CLASSES_ON = (*LEARN_ON.actions, Action.NONE, Action.LOG, Action.RECALIBRATE)
STALE_UPDATE = timedelta(hours=24)


def learn_site(context: AdapterContext, site: str, strategy: str) -> AdapterVersion:
    """Train, gate and register one update, with its row in the table of updates; `strategy` may be `auto`.

    Raises StreamError or ImageLetGoError when the strategy, or one that `auto` tries, asks for what the change plan
    does not keep.
    """
    tried = context.options.plan.strategies if strategy == AUTO else (strategy,)
    check_kept(context.options.plan, tried)
    champion = context.champion()
    parent = champion.number if champion else None
    updates = context.registry.updates
    plan = _attempt(context, champion, site, strategy)
    begun = updates.begin(context.name, site, parent, plan, context.workplace.actor)
    started = time.perf_counter()
    number, outcome = None, "failed"
    try:
        trained, choice = candidate_of(context, champion, site, strategy)
        version = register_candidate(context, trained, choice)
        number = version.number
        outcome = "accepted" if version.state is AdapterState.ACCEPTED else "rejected"
    finally:
        updates.finish(begun.id, number, outcome, {"total": time.perf_counter() - started})
    return version


def already_judged(context: AdapterContext, site: str, strategy: str) -> bool:
    """Whether the present champion was already updated with these very samples and the gate has spoken."""
    champion = context.champion()
    if champion is None:
        return False
    if not any(sample.split is Split.TRAIN for sample in new_samples(context, champion, site)):
        return True
    plan = _attempt(context, champion, site, strategy)
    return any(
        update.site == site
        and update.parent == champion.number
        and update.outcome in JUDGED
        and {**plan, **_completed(update.plan)} == plan
        for update in context.registry.updates.list(context.name, MOST_UPDATES)
    )


def check_before_release(workspace: str, wanted: Release, strategy: str | None = None) -> list[str]:
    """Refuse now what the release would refuse after the intake; for an adapter in service, what of the wish is void.

    `strategy` is what the updates after it are asked to use. Raises LearningError, BackboneError,
    ConflictError, StreamError or ImageLetGoError.
    """
    asked = options_from_record(wanted.options)
    check_strategies(asked, strategy)
    check_mixing(asked, (*asked.plan.strategies, *([strategy] if strategy else [])))
    with open_workplace(workspace, create=True) as workplace:
        champion = champion_of(workplace, wanted.adapter)
        if champion is not None:
            # What it was released for counts, not what is wished for now.
            check_strategies(options_from_record(champion.record["options"]), strategy)
            return options_kept(champion, wanted)
        check_release(wanted, workplace.settings.device)
        return []


def check_references(workspace: str, adapter: str, references: Sequence[str], *, keep_images: bool) -> None:
    """Raise an error where references could not be learnt after the run, or are none.

    They learn all images once more, so that an adapter in service must keep them; one that is to be made does as
    `keep_images` says. Raises SettingsError, or StreamError for a strategy that cannot start from a version.
    """
    for reference in references:
        update_strategy(reference)
    with open_workplace(workspace, create=True) as workplace:
        champion = champion_of(workplace, adapter)
        kept = keep_images if champion is None else options_from_record(champion.record["options"]).plan.keep_images
    if references and not kept:
        raise SettingsError(
            f"--compare {','.join(references)} learns all images once more, and of adapter {adapter} (--no-images) 0 "
            "are kept; leave --compare out"
        )


def is_in_service(workspace: str, adapter: str) -> bool:
    """Whether the adapter has a champion."""
    with open_workplace(workspace) as workplace:
        return champion_of(workplace, adapter) is not None


def release(workspace: str, site: str, wanted: Release) -> AdapterVersion:
    """Train and register the first version of an adapter on its first site.

    It has LoRA weights whatever the updates will use: later LoRA updates start from them. Raises StreamError when the
    gate refuses it: nothing can be built on a model that does not beat guessing.
    """
    with open_workplace(workspace) as workplace:
        champion = champion_of(workplace, wanted.adapter)
        if champion is not None:
            if not options_from_record(champion.record["options"]).plan.keep_images:
                _let_go(context_of(workplace, wanted.adapter))
            return champion
        weights = resolve_backbone(wanted.backbone, wanted.backbone_name)
        context = AdapterContext(workplace, wanted.adapter, weights, options_from_record(wanted.options))
        version = learn_site(context, site, "naive")
        _let_go(context)
    if version.gate is not None and not version.gate.accepted:
        reasons = " ".join(finding.reason for finding in version.gate.findings if not finding.passed)
        raise StreamError(f"the gate refused the first version. {reasons} Send more labelled images or raise --steps")
    return version


def look_and_learn(
    workspace: str,
    adapter: str,
    site: str,
    strategy: str | None,
    learn_on: Occasion,
    *,
    new_classes: bool = False,
) -> str:
    """Look at a site, then learn it when the verdict's action says so and the plan's pace allows; what happened, said.

    A class that the champion does not know is a reason of its own, where `new_classes` or the change plan allows it:
    no drift is needed, only data that are sound and enough.
    """
    with open_workplace(workspace) as workplace:
        workplace.registry.updates.reap(STALE_UPDATE)
        context = context_of(workplace, adapter, new_classes=new_classes)
        chosen = strategy or context.options.plan.strategies[0]
        check_strategies(context.options, chosen)
        outcome = _learn_if_needed(context, site, chosen, learn_on)
        # Also where nothing was learnt now: an update that was killed afterwards may not have got so far.
        _let_go(context)
        return outcome


def _learn_if_needed(context: AdapterContext, site: str, strategy: str, learn_on: Occasion) -> str:
    if already_judged(context, site, strategy):
        return "nothing new"
    report = look_at_site(context, context.registry.adapters.current(context.name), site, now=learn_on.now)
    if report is None:
        return "nothing new"
    hindrance = _hindrance(context, site, report, learn_on)
    if hindrance is not None:
        return f"not learnt: {hindrance}"
    version = learn_site(context, site, strategy)
    return f"version {version.number} {version.state.value}"


def _hindrance(context: AdapterContext, site: str, report: DriftReport, learn_on: Occasion) -> str | None:
    """Why a site that was looked at is not learnt now, or None."""
    if report.action not in learn_on.actions and not _offers_new_classes(context, site, report.action):
        return f"{report.verdict.value}, action {report.action.value}"
    pause = _pause(context, site, report.action) if learn_on.paced else None
    if pause is not None:
        return pause
    champion = context.registry.adapters.current(context.name)
    fault = look_at_unseen(context, champion, site)
    if fault is not None:
        return f"{fault.verdict.value}, action {fault.action.value}"
    return trouble_with_labels(context, champion, site)


def _pause(context: AdapterContext, site: str, action: Action) -> str | None:
    spoken = judged_updates(context.registry.updates.list(context.name, MOST_UPDATES))
    judged = [JudgedUpdate(each.site, each.finished_at) for each in spoken if each.finished_at is not None]
    urgent = action is Action.URGENT_UPDATE
    pause = update_pause(context.options.plan, site, judged, datetime.now(UTC), urgent=urgent)
    return None if pause is None else pause.reason


def _let_go(context: AdapterContext) -> None:
    gone = let_go(context)
    if gone:
        say(f"{gone} images let go; what learning needs of them is kept as activations")


def _attempt(context: AdapterContext, champion: AdapterVersion | None, site: str, strategy: str) -> dict[str, Any]:
    """What an update is made of; the same again would come to the same."""
    held = context.registry.holds.held(site)
    batches = [batch.number for batch in context.registry.samples.batches(site) if batch.number not in held]
    # Also those whose images were let go since: what was judged is judged.
    training = [one for one in context.registry.samples.list(site, Split.TRAIN) if not has_learnt(champion, one)]
    return {
        "strategy": strategy,
        "options": context.options.as_record(),
        "batches": batches,
        # Labels may come without any batch.
        "labels": sha256_json(sorted((one.digest, one.label or "", one.mask or "") for one in training)),
    }


def _completed(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of an attempt; one of an older release has the defaults of the options that came since."""
    return {**plan, "options": options_from_record(plan["options"]).as_record()}


def _offers_new_classes(context: AdapterContext, site: str, action: Action) -> bool:
    champion = context.champion()
    if champion is None or not context.options.plan.new_classes or action not in LEARN_NEW_CLASSES_ON:
        return False
    labelled = [sample for sample in new_samples(context, champion, site) if sample.split is Split.TRAIN]
    return bool(new_labels(champion, labelled))


@task(name="release adapter", cache_policy=NO_CACHE)
def release_adapter(workspace: str, site: str, wanted: Release) -> int:
    """The first version as a Prefect task; its number."""
    return release(workspace, site, wanted).number


@task(name="update site", cache_policy=NO_CACHE)
def update_site(
    workspace: str,
    adapter: str,
    site: str,
    strategy: str | None,
    learn_on: Occasion,
    *,
    new_classes: bool = False,
) -> str:
    """Look and learn as a Prefect task."""
    return look_and_learn(workspace, adapter, site, strategy, learn_on, new_classes=new_classes)


@flow(name="update", validate_parameters=True)
def update(
    workspace: str,
    adapter: str,
    site: str | None = None,
    strategy: str | None = None,
    *,
    new_classes: bool = False,
    now: bool = False,
) -> dict[str, str]:
    """Update an adapter with one site's new samples, or every site's, where the drift verdict calls for it.

    A window closes when the change plan says that a look is due; with `now` as soon as it has the fewest subjects.
    A site that fails keeps no other from its turn; the flow fails after the last one.
    """
    with open_workplace(workspace) as workplace:
        sites = sites_to_visit(workplace, adapter, site)
    learn_on = replace(LEARN_ON, now=now)

    def learnt(name: str) -> str:
        outcome = update_site(workspace, adapter, name, strategy, learn_on, new_classes=new_classes)
        say(f"{name}: {outcome}")
        return outcome

    return visit_each(sites, learnt)
