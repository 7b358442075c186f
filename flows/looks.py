"""Looks at a site: the window that is due held against the champion's references, and what is filed of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport, Verdict
from flows.adapter_context import AdapterContext
from flows.arrivals import Arrivals, NextLook, Stretch, next_look, reports_of_closed
from flows.champion_windows import ChampionWindows
from flows.learnt import has_learnt_batch
from flows.windows import new_samples
from monitoring import Past, is_faulty, look, look_at_intake

MOST_REPORTS = 10_000
"""Reports of a site that are read back: 27 years of daily looks."""


def look_at_site(
    context: AdapterContext, champion: AdapterVersion, site: str, *, now: bool = True
) -> DriftReport | None:
    """Compare a site's current window with the champion's references and file a report.

    A window is looked at as soon as it can be tested or, unless `now`, when the plan says that a scheduled look is due
    (`flows.arrivals`). Until then the last window is judged again, and filed if that says something new. None when
    there is nothing to look at. Too many images held back are a data fault at once; the batches with a fault are held.
    """
    plan = context.options.plan
    arrivals = arrivals_of(context, champion, site)
    filed = [*reversed(context.registry.drift.list(site, limit=MOST_REPORTS))]
    tested = reports_of_closed(filed, context.name, champion)
    pending = arrivals.pending(tested)
    broken = look_at_intake(site, plan, arrivals.intake(pending))
    if broken is not None:
        said = replace(broken, adapter=context.name, version=champion.number, batches=pending.batches)
        return _file(context, filed, said, [b for b in arrivals.each_batch(pending) if _is_broken(arrivals, b, plan)])
    due = next_look(arrivals, tested, plan, datetime.now(UTC), now=now)
    if due is None:
        return None
    if not due.current.samples:
        return tested[-1]  # its patients were erased: what was said of them stands
    windows = ChampionWindows(context, champion)
    said = compare(windows, arrivals, due, plan)
    each = arrivals.each_batch(due.current) if said.verdict is Verdict.DATA_FAULT else []
    return _file(context, filed, said, [batch for batch in each if _is_broken(arrivals, batch, plan, windows)])


def arrivals_of(context: AdapterContext, champion: AdapterVersion, site: str) -> Arrivals:
    """What the registry has of a site since the champion learnt it."""
    holds = context.registry.holds.list(site)
    held = {hold.batch for hold in holds if hold.released_at is None}
    arrived = [
        batch
        for batch in context.registry.samples.batches(site)
        if batch.number not in held and not has_learnt_batch(champion, site, batch.number)
    ]
    released = frozenset(hold.batch for hold in holds) - held
    return Arrivals(site, arrived, new_samples(context, champion, site), released)


def _is_broken(arrivals: Arrivals, batch: Stretch, plan: ChangePlan, windows: ChampionWindows | None = None) -> bool:
    """Whether it is this batch that makes its window a data fault; without windows only by what was held back of it."""
    references = windows.references() if windows else []
    images = windows.window(arrivals.site, batch.samples) if windows and batch.samples else None
    return is_faulty(references, images, plan, arrivals.intake(batch))


def _file(
    context: AdapterContext, filed: Sequence[DriftReport], said: DriftReport, broken: Sequence[Stretch]
) -> DriftReport:
    """File a report unless it says nothing new, and hold the broken batches of a data fault, or all of its window."""
    same = bool(filed) and is_same(filed[-1], said)
    report = filed[-1] if same else context.registry.drift.add(said, context.workplace.actor)
    if said.verdict is Verdict.DATA_FAULT:
        # After the report: whoever is killed between the two finds the same fault again, and holds it then.
        batches = [number for stretch in broken for number in stretch.batches] or said.batches or ()
        context.registry.holds.hold(batches, said.reason, context.workplace.actor)
    return report


def compare(windows: ChampionWindows, arrivals: Arrivals, due: NextLook, plan: ChangePlan) -> DriftReport:
    """The report of a look; nothing is filed."""
    site, said_before = arrivals.site, [report.over_time for report in due.tested if report.over_time is not None]
    windows.fill(site, arrivals.samples)
    report = look(
        windows.references(),
        windows.window(site, due.current.samples),
        plan,
        arrivals.intake(due.current),
        windows.performance(arrivals.samples),
        Past(
            tuple(windows.window(site, samples) if samples else None for samples in due.past_samples()),
            tuple(evidence.e_values for evidence in said_before),
            said_before[-1].called_at if said_before else None,
        ),
    )
    return replace(report, adapter=windows.adapter, version=windows.champion.number, batches=due.current.batches)


def is_same(filed: DriftReport, said: DriftReport) -> bool:
    """Whether a look says nothing that is not filed already."""
    return replace(filed, id=None, created_at=None) == replace(said, id=None, created_at=None)
