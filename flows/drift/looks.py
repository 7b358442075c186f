"""Looks at a site: the window that is due held against the champion's references, and what is filed of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport, Verdict
from continual.domain.drift_views import Projection
from continual.domain.samples import Sample
from flows.alerting.alerts import file_report, send_after_look
from flows.drift.arrivals import Arrivals, NextLook, Stretch, next_look, reports_of_closed
from flows.drift.champion_windows import ChampionWindows
from flows.drift.outcomes import keep_predictions
from flows.updates.adapter_context import AdapterContext
from flows.updates.experiences import new_samples
from flows.updates.learnt import has_learnt_batch
from monitoring import Past, Window, is_faulty, look, look_at_intake, project
from registry import store_projection

MOST_REPORTS = 10_000
"""Reports of a site that are read back: 27 years of daily looks."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The windows of a look: references, what was looked at before, and the current one."""

    references: Sequence[Window]
    past: tuple[Window | None, ...]
    current: Window

    def projection(self, seed: int) -> Projection | None:
        """Their map of embeddings; None without a reference."""
        if not self.references:
            return None
        return project(self.references, [window for window in self.past if window is not None], self.current, seed)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look says, and the batches that are faulty, to be held; none where it found no fault.

    `compared` is what it looked at; None where no images had to be.
    """

    report: DriftReport
    broken: tuple[int, ...] = ()
    compared: Compared | None = None


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

    A report that says nothing new of its window is not filed again, so a fault that came since stays the site's newest.
    None when there is nothing to look at.
    """
    filed = [*reversed(context.registry.drift.list(site, limit=MOST_REPORTS))]
    looker = Looker(context.name, champion, partial(ChampionWindows, context, champion), datetime.now(UTC), now)
    taken = take_look(looker, arrivals_of(context, champion, site), filed, context.options.plan)
    return None if taken is None else _act_on(context, champion, filed, taken)


def _act_on(
    context: AdapterContext, champion: AdapterVersion, filed: Sequence[DriftReport], taken: Taken
) -> DriftReport:
    """Keep, file, hold and send what a look asks for; the report as filed."""
    if taken.compared is not None:
        keep_predictions(context, champion, taken.compared.current)
    known = said_before(filed, taken.report)
    new = known is None and taken.report.id is None
    newest = filed[-1].id if filed else None
    report = _file(context, taken, newest or 0) if new else known or taken.report
    if taken.broken:
        # After the report: whoever is killed between the two finds the same fault again, and holds it then.
        context.registry.holds.hold(taken.broken, report.reason, context.workplace.actor)
    if new:
        send_after_look(context.workplace)
    return report


def look_at_unseen(context: AdapterContext, champion: AdapterVersion, site: str) -> DriftReport | None:
    """File and hold what is faulty among all that no look has seen; None where nothing of it is.

    An update learns all that came: also batches too small for a look, and new images of patients seen before.
    """
    filed = [*reversed(context.registry.drift.list(site, limit=MOST_REPORTS))]
    unseen = arrivals_of(context, champion, site).unseen(reports_of_closed(filed, context.name, champion))
    if not unseen.batches:
        return None
    plan, windows = context.options.plan, ChampionWindows(context, champion)
    windows.fill(site, unseen.samples)
    every = unseen.whole(tuple(batch.number for batch in unseen.batches))
    broken = _faulty(unseen, every, plan, windows)
    # Of batches too small to tell a fault from an odd image, all together may show it.
    if not broken and _is_faulty(unseen, every, plan, windows):
        broken = every.batches
    looker = Looker(context.name, champion, lambda: windows, datetime.now(UTC), now=True)
    # Faults of two kinds may dilute each other until neither shows in all batches together: then the first one speaks.
    for batches in (broken, broken[:1]):
        due = NextLook(unseen.whole(batches), (), (), harmed=False)
        if not due.current.samples:
            return None
        compared = _windows(windows, unseen, due)
        said = _compare(windows, compared, unseen, due, plan)
        if said.verdict is Verdict.DATA_FAULT:
            return _act_on(context, champion, filed, Taken(_signed(looker, said, due.current), batches, compared))
    return None


def take_look(looker: Looker, arrivals: Arrivals, filed: Sequence[DriftReport], plan: ChangePlan) -> Taken | None:
    """What a look says after the `filed` reports of the site, oldest first; None when there is nothing to look at.

    Too many images held back by the quality gate are a fault at once. A window is looked at as soon as it can be tested
    or, unless it is taken `now`, when the plan says that a scheduled look is due (`flows.drift.arrivals`). Until then
    the last window is judged again, since labels may have come.
    """
    tested = reports_of_closed(filed, looker.adapter, looker.champion)
    pending = arrivals.pending(tested)
    refused = look_at_intake(arrivals.site, plan, arrivals.intake(pending))
    if refused is not None:
        return Taken(_signed(looker, refused, pending), _broken(arrivals, pending, plan))
    due = next_look(arrivals, tested, plan, looker.at, now=looker.now)
    if due is None:
        return None
    if not due.current.samples:
        return Taken(tested[-1])  # its patients were erased: what was said of them stands
    windows = looker.windows()
    compared = _windows(windows, arrivals, due)
    said = _compare(windows, compared, arrivals, due, plan)
    broken = _broken(arrivals, due.current, plan, windows) if said.verdict is Verdict.DATA_FAULT else ()
    return Taken(_signed(looker, said, due.current), broken, compared)


def window_samples(context: AdapterContext, champion: AdapterVersion, report: DriftReport) -> Sequence[Sample]:
    """The samples of the window that a report of this version is on, without those that were erased since."""
    filed = [each for each in reversed(context.registry.drift.list(report.site, MOST_REPORTS)) if each.id != report.id]
    earlier = [each for each in filed if (each.id or 0) < (report.id or 0) and each.batches != report.batches]
    arrivals = arrivals_of(context, champion, report.site, with_held=True)
    return arrivals.window(reports_of_closed(earlier, context.name, champion), report.batches or ()).samples


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


def _file(context: AdapterContext, taken: Taken, after: int) -> DriftReport:
    """File what was said, with the map of what was looked at beside it; what another look filed `after` counts."""
    drawn = taken.compared.projection(context.options.plan.seed) if taken.compared else None
    address = None if drawn is None else store_projection(context.registry, drawn)
    return file_report(context.workplace, replace(taken.report, projection=address), after=after)


def _signed(looker: Looker, said: DriftReport, stretch: Stretch) -> DriftReport:
    return replace(said, adapter=looker.adapter, version=looker.champion.number, batches=stretch.batches)


def _broken(
    arrivals: Arrivals, stretch: Stretch, plan: ChangePlan, windows: ChampionWindows | None = None
) -> tuple[int, ...]:
    """Those batches of a faulty window that are faulty by themselves, or all of them; without windows by the intake."""
    return _faulty(arrivals, stretch, plan, windows) or stretch.batches


def _faulty(arrivals: Arrivals, stretch: Stretch, plan: ChangePlan, windows: ChampionWindows | None) -> tuple[int, ...]:
    each = arrivals.each_batch(stretch)
    return tuple(n for batch in each if _is_faulty(arrivals, batch, plan, windows) for n in batch.batches)


def _is_faulty(arrivals: Arrivals, stretch: Stretch, plan: ChangePlan, windows: ChampionWindows | None) -> bool:
    images = windows.window(arrivals.site, stretch.samples) if windows and stretch.samples else None
    return is_faulty(windows.references() if windows else [], images, plan, arrivals.intake(stretch))


def _windows(windows: ChampionWindows, arrivals: Arrivals, due: NextLook) -> Compared:
    windows.fill(arrivals.site, arrivals.samples)

    def window(samples: Sequence[Sample]) -> Window | None:
        return windows.window(arrivals.site, samples, arrivals.began(samples)) if samples else None

    current = windows.window(arrivals.site, due.current.samples, arrivals.began(due.current.samples))
    return Compared(windows.references(), tuple(map(window, due.past_samples())), current)


def _compare(
    windows: ChampionWindows, compared: Compared, arrivals: Arrivals, due: NextLook, plan: ChangePlan
) -> DriftReport:
    earlier = [report.over_time for report in due.tested if report.over_time is not None]
    return look(
        compared.references,
        compared.current,
        plan,
        arrivals.intake(due.current),
        windows.performance(arrivals.samples),
        Past(
            compared.past,
            tuple(evidence.e_values for evidence in earlier),
            earlier[-1].called_at if earlier else None,
            due.harmed,
        ),
    )


def said_before(filed: Sequence[DriftReport], said: DriftReport) -> DriftReport | None:
    """The newest of a site's reports on this window by this version, where it says the same; None for something new."""
    window = said.adapter, said.version, said.batches
    newest = next((one for one in reversed(filed) if (one.adapter, one.version, one.batches) == window), None)
    return newest if newest is not None and _is_same(newest, said) else None


def _is_same(filed: DriftReport, said: DriftReport) -> bool:
    # The map is drawn, not said: its last digits are the linear algebra's.
    first, second = (replace(report, id=None, created_at=None, projection=None) for report in (filed, said))
    return first == second
