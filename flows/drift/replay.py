"""The past under another change plan: which looks, alarms and updates there would have been; files nothing.

What came, when, and who was champion when, are history's own. Looks are taken when a window is due, in the order of
time, with what had arrived by then. Whether an update would have been promoted nobody can tell without training it, so
no promotion is assumed where history has none and none is undone.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, final

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import Action, DriftReport, Verdict
from continual.domain.errors import NotFoundError, SettingsError
from continual.domain.samples import Split
from continual.domain.update_pace import JudgedUpdate, update_pause
from flows.drift.adapter_history import AdapterHistory
from flows.drift.arrivals import Arrivals, pending_since, reports_of_closed
from flows.drift.looks import Looker, said_before, take_look
from flows.progress import Advance, track
from flows.updates.adapter_context import context_of
from flows.updates.occasions import LEARN_ON
from flows.workplace import Workplace, check_site

QUIET = (Verdict.NO_DRIFT, Verdict.INSUFFICIENT_DATA)
REPLAYED = frozenset(
    {
        "alpha",
        "first_look_share",
        "window_subjects",
        "window_days",
        "minimum_subjects",
        "permutations",
        "harm_margin",
        "harm_cleared",
        "rolling_windows",
        "quarantine_limit",
        "minimum_labelled",
        "cooldown_days",
        "updates_per_month",
        "seed",
    }
)
"""What of a change plan looks and the pace of updates depend on; the rest shapes training and the gate."""
RECORDED, IN_FORCE, POLICY = "recorded", "in force", "policy"
"""What happened, and what the champions' own plans and the policy would have made of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """One filed report in short: when, of which champion, how many subjects of the current window, what was said."""

    at: datetime
    version: int | None
    subjects: int
    verdict: Verdict
    action: Action


@dataclass(frozen=True, slots=True)
class Begun:
    """An update that began, or would have; `waits` says why it did not begin yet, where the plan's pace let it wait."""

    site: str
    at: datetime
    action: Action | None
    waits: str = ""


@dataclass(frozen=True, slots=True)
class SiteCourse:
    """What one plan made of one site; seconds are None where nobody can tell."""

    site: str
    plan: str
    looks: tuple[Look, ...]
    """Those that said something new."""
    alarms: tuple[Look, ...]
    """Those that called something that the look before had not called of the same champion."""
    updates: tuple[Begun, ...]
    waiting: tuple[Begun, ...]
    training_seconds: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """History and its replays side by side; `not_replayed` are the policy's fields that change no look."""

    adapter: str
    until: datetime | None
    policy: Mapping[str, Any]
    not_replayed: tuple[str, ...]
    seconds_per_update: float | None
    """Median over the adapter's judged updates; None where it has none."""
    courses: tuple[SiteCourse, ...]


def replay(workplace: Workplace, adapter: str | None, site: str | None, policy: Mapping[str, Any]) -> Replay:
    """An adapter's history, of one site or all, as recorded, under the plan in force and under the policy.

    Raises NotFoundError for an unknown adapter or site, SettingsError when a plan cannot have the policy's values.
    """
    context = context_of(workplace, _adapter(workplace, adapter))
    history = AdapterHistory(context)
    changed = {name: value for name, value in policy.items() if name in REPLAYED}
    plans = {IN_FORCE: history.plans, POLICY: {n: plan.changed(changed) for n, plan in history.plans.items()}}
    known = context.registry.samples.sites()
    check_site(workplace, site)
    shown = [site] if site else list(known)
    budgets = any(plan.updates_per_month for each in plans.values() for plan in each.values())
    # The budget is the adapter's: what other sites would have spent of it counts.
    runs = {name: _Run(history, each, list(known) if budgets else shown) for name, each in plans.items()}
    for name, run in runs.items():
        run.go(f"{context.name}: {name}")
    each = history.seconds_per_update
    courses = [
        course
        for name in shown
        for course in (_recorded(history, name), *(run.course(name, title, each) for title, run in runs.items()))
    ]
    left_out = tuple(name for name in policy if name not in REPLAYED)
    return Replay(context.name, history.until, policy, left_out, each, tuple(courses))


def _looks(reports: Sequence[DriftReport]) -> tuple[Look, ...]:
    return tuple(
        Look(report.created_at, report.version, report.current_subjects, report.verdict, report.action)
        for report in reports
        if report.created_at is not None
    )


def _alarms(looks: Sequence[Look]) -> tuple[Look, ...]:
    """What stands or is said again is no alarm."""
    before = [None, *((look.version, look.verdict) for look in looks)]
    return tuple(
        look
        for look, last in zip(looks, before, strict=False)
        if look.verdict not in QUIET and (look.version, look.verdict) != last
    )


def _adapter(workplace: Workplace, asked: str | None) -> str:
    known = workplace.registry.adapters.names()
    if asked is not None or len(known) == 1:
        return asked or known[0]
    if not known:
        raise NotFoundError("there are 0 adapters and no history to replay; make one with `continual run`")
    raise SettingsError(f"there are {len(known)} adapters, {', '.join(known)}; name one with --adapter")


def _recorded(history: AdapterHistory, site: str) -> SiteCourse:
    updates = [update for update in history.updates if update.site == site]
    looks = _looks(history.reports[site])
    begun = tuple(Begun(site, update.started_at, None) for update in updates)
    seconds = sum(float(update.seconds.get("total", 0.0)) for update in updates)
    return SiteCourse(site, RECORDED, looks, _alarms(looks), begun, (), seconds)


@final
class _Run:
    """One replay of some sites under one plan for each champion. Holds what it would have filed and learnt so far."""

    def __init__(self, history: AdapterHistory, plans: Mapping[int, ChangePlan], sites: Sequence[str]) -> None:
        self._history = history
        self._plans = plans
        self._sites = sites
        self._agenda: list[tuple[datetime, int]] = []
        self._filed: dict[str, list[DriftReport]] = {site: [] for site in sites}
        self._on_hold: dict[str, set[int]] = {site: set() for site in sites}
        self._begun: list[Begun] = []
        self._waiting: list[Begun] = []
        self._learnt: set[tuple[str, int, int, int]] = set()

    def go(self, title: str) -> None:
        """Look at every site whenever something came, a champion changed, or a window or a pause came of age."""
        batches, moves = self._history.batches, self._history.moves
        for place, site in enumerate(self._sites):
            times = {batch.created_at for batch in batches[site]} | {move.moved_at for move in moves}
            times |= set(self._history.events(site))
            self._agenda += [(at, place) for at in times]
        heapq.heapify(self._agenda)
        known = set(self._agenda)
        advance: Advance = track(title, len(known))
        last = None
        while self._agenda:
            entry = heapq.heappop(self._agenda)
            if entry != last:
                self._visit(entry[0], entry[1])
                advance(int(entry in known))
            last = entry

    def course(self, site: str, plan: str, seconds_per_update: float | None) -> SiteCourse:
        """What came of one site."""
        begun = tuple(update for update in self._begun if update.site == site)
        waiting = tuple(update for update in self._waiting if update.site == site)
        looks = _looks(self._filed[site])
        seconds = 0.0 if not begun else None if seconds_per_update is None else seconds_per_update * len(begun)
        return SiteCourse(site, plan, looks, _alarms(looks), begun, waiting, seconds)

    def _visit(self, at: datetime, place: int) -> None:
        champion = self._history.champion_at(at)
        if champion is None:
            return
        site, plan = self._sites[place], self._plans[champion.number]
        arrivals = self._history.arrivals(champion, site, at)
        arrivals = arrivals.without(self._on_hold[site] - arrivals.released)
        report = self._look(champion, arrivals, plan, at)
        since = pending_since(arrivals, self._tested(champion, site))
        if since is not None:
            self._come_back(since, plan.window_days, at, place)
        if report is not None and report.action in LEARN_ON.actions:
            self._learn(champion, arrivals, report.action, at)

    def _tested(self, champion: AdapterVersion, site: str) -> list[DriftReport]:
        return reports_of_closed(self._filed[site], self._history.adapter, champion)

    def _look(self, champion: AdapterVersion, arrivals: Arrivals, plan: ChangePlan, at: datetime) -> DriftReport | None:
        """What the scheduled monitor would have said, as `look_at_site` does; faulty batches are held."""
        filed, windows = self._filed[arrivals.site], partial(self._history.windows_of, champion)
        taken = take_look(Looker(self._history.adapter, champion, windows, at, now=False), arrivals, filed, plan)
        if taken is None or taken.report in filed:
            return None if taken is None else taken.report
        self._on_hold[arrivals.site].update(taken.broken)
        known = said_before(filed, taken.report)
        if known is None:
            filed.append(replace(taken.report, created_at=at))
        return known or filed[-1]

    def _learn(self, champion: AdapterVersion, arrivals: Arrivals, action: Action, at: datetime) -> None:
        """Begin an update unless these very samples were learnt, none of them can be, or the pace holds it back."""
        site, plan = arrivals.site, self._plans[champion.number]
        labels = sum(sample.label is not None for sample in arrivals.samples)
        which = site, champion.number, max(batch.number for batch in arrivals.batches), labels
        if which in self._learnt or not any(sample.split is Split.TRAIN for sample in arrivals.samples):
            return
        judged = [JudgedUpdate(update.site, update.at) for update in self._begun]
        pause = update_pause(plan, site, judged, at, urgent=action is Action.URGENT_UPDATE)
        if pause is None:
            self._learnt.add(which)
            self._begun.append(Begun(site, at, action))
            return
        if not any((each.site, each.waits) == (site, pause.reason) for each in self._waiting):
            self._waiting.append(Begun(site, at, action, pause.reason))
        self._come_back(pause.until, 0.0, at, self._sites.index(site))

    def _come_back(self, since: datetime, days: float, at: datetime, place: int) -> None:
        """Visit the site again so long after `since`, where that lies between now and the end of history."""
        until = self._history.until
        if until is None or until - since < timedelta(days=days):
            return
        again = since + timedelta(days=days)
        if again > at:
            heapq.heappush(self._agenda, (again, place))
