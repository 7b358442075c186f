"""Looks at a site: the window that is due held against the champion's references, and what is filed of it."""

from dataclasses import replace
from datetime import UTC, datetime

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport
from flows.adapter_context import AdapterContext
from flows.arrivals import Arrivals, NextLook, next_look, reports_of_closed
from flows.champion_windows import ChampionWindows
from flows.windows import learnt_batch, new_samples
from monitoring import Past, look

MOST_REPORTS = 10_000
"""Reports of a site that are read back: 27 years of daily looks."""


def look_at_site(
    context: AdapterContext, champion: AdapterVersion, site: str, *, now: bool = True
) -> DriftReport | None:
    """Compare a site's current window with the champion's references and file a report.

    A window is looked at as soon as it can be tested or, unless `now`, when the plan says that a scheduled look is due
    (`flows.arrivals`). Until then the last window is judged again, and filed if that says something new. None when
    there is nothing to look at.
    """
    arrivals = arrivals_of(context, champion, site)
    filed = [*reversed(context.registry.drift.list(site, limit=MOST_REPORTS))]
    tested = reports_of_closed(filed, context.name, champion)
    due = next_look(arrivals, tested, context.options.plan, datetime.now(UTC), now=now)
    if due is None:
        return None
    if not due.current.samples:
        return tested[-1]  # its patients were erased: what was said of them stands
    said = compare(ChampionWindows(context, champion), arrivals, due, context.options.plan)
    if filed and is_same(filed[-1], said):
        return filed[-1]
    return context.registry.drift.add(said, context.workplace.actor)


def arrivals_of(context: AdapterContext, champion: AdapterVersion, site: str) -> Arrivals:
    """What the registry has of a site since the champion learnt it."""
    batches = context.registry.samples.batches(site)
    return Arrivals(site, learnt_batch(champion, site), batches, new_samples(context, champion, site))


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
            due.harmed,
        ),
    )
    return replace(report, adapter=windows.adapter, version=windows.champion.number, batches=due.current.batches)


def is_same(filed: DriftReport, said: DriftReport) -> bool:
    """Whether a look says nothing that is not filed already."""
    return replace(filed, id=None, created_at=None) == replace(said, id=None, created_at=None)
