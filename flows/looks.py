"""Looks at a site over time: which samples make the next window, what was looked at before, what is filed.

Each sample is in one window and each subject in the first one that it came to; a window that was tested is closed. What
has been looked at stands in the drift reports of the champion, so there is nothing else to keep, or to lose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from continual.domain.adapters import AdapterVersion
from continual.domain.drift import DriftReport
from continual.domain.samples import Sample
from flows.adapter_context import AdapterContext
from flows.outcomes import KnownSite, keep_predictions, measured_performance
from flows.windows import held_out, learnt_batch, new_samples, window_of
from monitoring import Intake, Past, look

MOST_REPORTS = 10_000
"""Reports of a site that are read back: 27 years of daily looks."""


MOST_PAST_SUBJECTS = 1000
"""Of the subjects in closed windows, as many are held against the current one: those with the lowest pseudonyms.

A pseudonym is a keyed hash, so they are a fair draw, and the same ones from look to look.
"""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The samples of some intake batches, first and last, whose subjects had not come before."""

    batches: tuple[int, int]
    samples: Sequence[Sample]

    @property
    def subjects(self) -> int:
        return len({sample.subject for sample in self.samples})


def look_at_site(
    context: AdapterContext, champion: AdapterVersion, site: str, *, now: bool = True
) -> DriftReport | None:
    """Compare a site's current window with the champion's references and file a report.

    The window closes when it has the plan's fewest subjects or, unless `now`, when the plan says that a scheduled look
    is due. Until then the last window is judged again, since labels may have come, and filed if that says something
    new. None when there is nothing to look at.
    """
    arrived = new_samples(context, champion, site)
    tested = _tested(context, champion, site)
    closed = _closed(arrived, tested)
    pending = _pending(context, learnt_batch(champion, site), arrived, closed, site)
    testable = pending.subjects >= context.options.plan.minimum_subjects
    if tested and not (testable and _is_due(context, site, pending, now=now)):
        if not closed[-1].samples:
            return tested[-1]  # its patients were erased: what was said of them stands
        tested, closed, pending = tested[:-1], closed[:-1], closed[-1]
    elif not pending.samples or not _is_due(context, site, pending, now=now):
        return None
    return _look(context, champion, site, pending, _Before(arrived, closed, tested))


def _tested(context: AdapterContext, champion: AdapterVersion, site: str) -> list[DriftReport]:
    """The champion's reports of closed windows, oldest first; of one that was judged again the last."""
    reports = reversed(context.registry.drift.list(site, limit=MOST_REPORTS))
    ours = [r for r in reports if (r.adapter, r.version) == (context.name, champion.number) and r.over_time is not None]
    return list({report.batches: report for report in ours}.values())


def _closed(arrived: Sequence[Sample], tested: Sequence[DriftReport]) -> list[_Stretch]:
    seen, stretches = set[str](), []
    for report in tested:
        first, last = report.batches or (0, 0)
        stretches.append(_Stretch((first, last), _first_seen(arrived, seen, first, last)))
    return stretches


def _first_seen(arrived: Sequence[Sample], seen: set[str], first: int, last: int) -> list[Sample]:
    """Samples of batches first..last whose subjects are not among the seen; these are seen from now on."""
    samples = [sample for sample in arrived if first <= sample.batch <= last and sample.subject not in seen]
    seen.update(sample.subject for sample in samples)
    return samples


def _pending(
    context: AdapterContext, learnt: int, arrived: Sequence[Sample], closed: Sequence[_Stretch], site: str
) -> _Stretch:
    """What came after the last closed window."""
    after = closed[-1].batches[1] if closed else learnt
    seen = {sample.subject for stretch in closed for sample in stretch.samples}
    numbers = [batch.number for batch in context.registry.samples.batches(site) if batch.number > after]
    batches = (min(numbers, default=after), max(numbers, default=after))
    return _Stretch(batches, _first_seen(arrived, seen, after + 1, batches[1]))


def _is_due(context: AdapterContext, site: str, pending: _Stretch, *, now: bool) -> bool:
    plan = context.options.plan
    if now or pending.subjects >= plan.window_subjects:
        return True
    first = min((sample.batch for sample in pending.samples), default=None)
    if first is None:
        return False
    began = next(batch.created_at for batch in context.registry.samples.batches(site) if batch.number == first)
    return datetime.now(UTC) - began >= timedelta(days=plan.window_days)


@dataclass(frozen=True, slots=True)
class _Before:
    """What arrived since the champion learnt the site, and what of it was looked at, oldest first."""

    arrived: Sequence[Sample]
    closed: Sequence[_Stretch]
    tested: Sequence[DriftReport]


def _look(
    context: AdapterContext, champion: AdapterVersion, site: str, current: _Stretch, before: _Before
) -> DriftReport:
    past = _past_samples(before.closed)
    said_before = [report.over_time for report in before.tested if report.over_time is not None]
    known = {name: held_out(context, champion, name) for name in champion.trained_on}
    # A site may have no held-out subject left, a window no sample: they can be erased.
    references = {name: samples for name, samples in known.items() if samples}
    groups = [*references.values(), before.arrived]
    everything = {sample.digest: sample for group in groups for sample in group}
    context.fill(list(everything.values()), 1, f"{site}: activations")
    network = context.network_of(champion)
    held = {name: KnownSite(each, window_of(context, network, name, each)) for name, each in references.items()}
    seen = window_of(context, network, site, current.samples)
    keep_predictions(context, champion, current.samples, seen)
    report = look(
        [each.window for each in held.values()],
        seen,
        context.options.plan,
        _intake(context, site, current.batches),
        measured_performance(context, network, champion, before.arrived, held),
        Past(
            tuple(window_of(context, network, site, samples) if samples else None for samples in past),
            tuple(evidence.e_values for evidence in said_before),
            said_before[-1].called_at if said_before else None,
        ),
    )
    said = replace(report, adapter=context.name, version=champion.number, batches=current.batches)
    last = context.registry.drift.latest(site)
    if last is not None and replace(last, id=None, created_at=None) == said:
        return last
    return context.registry.drift.add(said, context.workplace.actor)


def _past_samples(closed: Sequence[_Stretch]) -> list[list[Sample]]:
    """The samples of each closed window that the current one is held against."""
    subjects = sorted({sample.subject for stretch in closed for sample in stretch.samples})
    kept = set(subjects[:MOST_PAST_SUBJECTS])
    return [[sample for sample in stretch.samples if sample.subject in kept] for stretch in closed]


def _intake(context: AdapterContext, site: str, batches: tuple[int, int]) -> Intake:
    inside = [b for b in context.registry.samples.batches(site) if batches[0] <= b.number <= batches[1]]
    quarantined = sum(batch.quarantined for batch in inside)
    return Intake(offered=quarantined + sum(batch.new + batch.duplicates for batch in inside), quarantined=quarantined)
