"""Looks at a site: the window that is due held against the champion's references, and what is filed of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport, Verdict
from flows.adapter_context import AdapterContext
from flows.alerts import file_report, send_after_look
from flows.arrivals import Arrivals, NextLook, Stretch, next_look, reports_of_closed
from flows.champion_windows import ChampionWindows
from flows.learnt import has_learnt_batch
from flows.windows import new_samples
from monitoring import Past, is_faulty, look, look_at_intake

MOST_REPORTS = 10_000
"""Reports of a site that are read back: 27 years of daily looks."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look says, and the batches that are faulty, to be held; none where it found no fault."""

    report: DriftReport
    broken: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Looker:
    """For whom a look is taken, and when. `windows` loads the champion's network, which not every look needs."""

    adapter: str
    champion: AdapterVersion
    windows: Callable[[], ChampionWindows]
    at: datetime
    now: bool


def look_at_site(
    context: AdapterContext, champion: AdapterVersion, site: str, *, now: bool = True
) -> DriftReport | None:
    """Compare a site's current window with the champion's references, file a report and hold faulty batches.

    A report that says nothing new is not filed again. None when there is nothing to look at.
    """
    filed = [*reversed(context.registry.drift.list(site, limit=MOST_REPORTS))]
    looker = Looker(context.name, champion, partial(ChampionWindows, context, champion), datetime.now(UTC), now)
    taken = take_look(looker, arrivals_of(context, champion, site), filed, context.options.plan)
    if taken is None:
        return None
    known = next((report for report in filed[-1:] if is_same(report, taken.report)), None)
    new = known is None and taken.report.id is None
    report = file_report(context.workplace, taken.report) if new else known or taken.report
    if taken.broken:
        # After the report: whoever is killed between the two finds the same fault again, and holds it then.
        context.registry.holds.hold(taken.broken, report.reason, context.workplace.actor)
    if new:
        send_after_look(context.workplace)
    return report


def take_look(looker: Looker, arrivals: Arrivals, filed: Sequence[DriftReport], plan: ChangePlan) -> Taken | None:
    """What a look says after the `filed` reports of the site, oldest first; None when there is nothing to look at.

    Too many images held back by the quality gate are a fault at once. A window is looked at as soon as it can be tested
    or, unless it is taken `now`, when the plan says that a scheduled look is due (`flows.arrivals`). Until then the
    last window is judged again, since labels may have come.
    """
    tested = reports_of_closed(filed, looker.adapter, looker.champion)
    pending = arrivals.pending(tested)
    refused = look_at_intake(arrivals.site, plan, arrivals.intake(pending))
    if refused is not None:
        return _taken(looker, refused, pending, _broken(arrivals, pending, plan))
    due = next_look(arrivals, tested, plan, looker.at, now=looker.now)
    if due is None:
        return None
    if not due.current.samples:
        return Taken(tested[-1])  # its patients were erased: what was said of them stands
    windows = looker.windows()
    said = compare(windows, arrivals, due, plan)
    faulty = said.verdict is Verdict.DATA_FAULT
    return _taken(looker, said, due.current, _broken(arrivals, due.current, plan, windows) if faulty else ())


def arrivals_of(context: AdapterContext, champion: AdapterVersion, site: str, *, with_held: bool = False) -> Arrivals:
    """What the registry has of a site since the champion learnt it; `with_held`: as it came, before any was held."""
    holds = context.registry.holds.list(site)
    released = frozenset(hold.batch for hold in holds if hold.released_at is not None)
    held = frozenset[int]() if with_held else frozenset(hold.batch for hold in holds) - released
    arrived = [
        batch
        for batch in context.registry.samples.batches(site)
        if batch.number not in held and not has_learnt_batch(champion, site, batch.number)
    ]
    return Arrivals(site, arrived, new_samples(context, champion, site, with_held=with_held), released)


def _taken(looker: Looker, said: DriftReport, stretch: Stretch, broken: tuple[int, ...]) -> Taken:
    number = looker.champion.number
    return Taken(replace(said, adapter=looker.adapter, version=number, batches=stretch.batches), broken)


def _broken(
    arrivals: Arrivals, stretch: Stretch, plan: ChangePlan, windows: ChampionWindows | None = None
) -> tuple[int, ...]:
    """Those batches of a faulty window that are faulty by themselves, or all of them; without windows by the intake."""
    references = windows.references() if windows else []
    found = [
        batch.batches
        for batch in arrivals.each_batch(stretch)
        if is_faulty(
            references,
            windows.window(arrivals.site, batch.samples) if windows and batch.samples else None,
            plan,
            arrivals.intake(batch),
        )
    ]
    return tuple(number for batches in found for number in batches) or stretch.batches


def compare(windows: ChampionWindows, arrivals: Arrivals, due: NextLook, plan: ChangePlan) -> DriftReport:
    """The report of a look; nothing is filed."""
    site, said_before = arrivals.site, [report.over_time for report in due.tested if report.over_time is not None]
    windows.fill(site, arrivals.samples)
    return look(
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


def is_same(filed: DriftReport, said: DriftReport) -> bool:
    """Whether a look says nothing that is not filed already."""
    return replace(filed, id=None, created_at=None) == replace(said, id=None, created_at=None)
