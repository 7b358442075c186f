"""How what arrived at a site is cut into windows, and which the next look is at; asks no registry and no clock.

Each sample is in one window and each subject in the first one that it came to; a window that was tested is closed. What
has been looked at stands in the drift reports of the champion, so there is nothing else to keep, or to lose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from continual.domain.adapters import AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import DriftReport
from continual.domain.samples import Sample
from monitoring import Intake
from registry import Batch

MOST_PAST_SUBJECTS = 1000
"""Of the subjects in closed windows, as many are held against the current one: those with the lowest pseudonyms.

A pseudonym is a keyed hash, so they are a fair draw, and the same ones from look to look.
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The samples of some intake batches, first and last, whose subjects had not come before."""

    batches: tuple[int, int]
    samples: Sequence[Sample]

    @property
    def subjects(self) -> int:
        """Number of different subjects."""
        return len({sample.subject for sample in self.samples})


@dataclass(frozen=True, slots=True)
class Arrivals:
    """All intake batches of a site, oldest first, and the samples of those after `learnt`, the champion's last one."""

    site: str
    learnt: int
    batches: Sequence[Batch]
    samples: Sequence[Sample]

    def until(self, at: datetime) -> "Arrivals":
        """What of it had come by then."""
        batches = [batch for batch in self.batches if batch.created_at <= at]
        numbers = {batch.number for batch in batches}
        return replace(self, batches=batches, samples=[s for s in self.samples if s.batch in numbers])

    def intake(self, stretch: Stretch) -> Intake:
        """What was offered in a stretch's batches, and what of it was held back."""
        first, last = stretch.batches
        inside = [batch for batch in self.batches if first <= batch.number <= last]
        quarantined = sum(batch.quarantined for batch in inside)
        return Intake(
            offered=quarantined + sum(batch.new + batch.duplicates for batch in inside), quarantined=quarantined
        )

    def began(self, stretch: Stretch) -> datetime | None:
        """When the first batch came that a sample of the stretch is of; None where there is no sample."""
        first = min((sample.batch for sample in stretch.samples), default=None)
        return next((batch.created_at for batch in self.batches if batch.number == first), None)


@dataclass(frozen=True, slots=True)
class NextLook:
    """A look at the window `current`, after the windows that are `closed`, of which the reports `tested` tell.

    `current` has no samples where its patients were erased: what was said of them stands.
    """

    current: Stretch
    closed: Sequence[Stretch]
    tested: Sequence[DriftReport]
    harmed: bool
    """The last report since the promotion, of `current` itself where it is judged again, says that harm stands."""

    def past_samples(self) -> list[list[Sample]]:
        """The samples of each closed window that the current one is held against."""
        subjects = sorted({sample.subject for stretch in self.closed for sample in stretch.samples})
        kept = set(subjects[:MOST_PAST_SUBJECTS])
        return [[sample for sample in stretch.samples if sample.subject in kept] for stretch in self.closed]


def reports_of_closed(reports: Sequence[DriftReport], adapter: str, champion: AdapterVersion) -> list[DriftReport]:
    """Of a site's reports, oldest first, the champion's of closed windows; of one that was judged again the last."""
    ours = [r for r in reports if (r.adapter, r.version) == (adapter, champion.number) and r.over_time is not None]
    return list({report.batches: report for report in ours}.values())


def next_look(
    arrivals: Arrivals, tested: Sequence[DriftReport], plan: ChangePlan, at: datetime, *, now: bool
) -> NextLook | None:
    """What a look at this moment is at, None for nothing.

    The window closes when it has the plan's fewest subjects or, unless `now`, when the plan says that a scheduled look
    is due. Until then the last window is judged again, since labels may have come.
    """
    closed = _closed(arrivals.samples, tested)
    pending = _pending(arrivals, closed)
    harmed = bool(tested) and tested[-1].harmed
    due = now or pending.subjects >= plan.window_subjects or is_old(arrivals.began(pending), plan, at)
    if tested and not (due and pending.subjects >= plan.minimum_subjects):
        return NextLook(closed[-1], closed[:-1], tested[:-1], harmed)
    if not pending.samples or not due:
        return None
    return NextLook(pending, closed, tested, harmed)


def is_old(began: datetime | None, plan: ChangePlan, at: datetime) -> bool:
    """Whether a window that began then closes at its age, with however few subjects."""
    return began is not None and at - began >= timedelta(days=plan.window_days)


def pending_since(arrivals: Arrivals, tested: Sequence[DriftReport]) -> datetime | None:
    """When the window began that is still open; None where nothing came after the last closed one."""
    return arrivals.began(_pending(arrivals, _closed(arrivals.samples, tested)))


def _closed(arrived: Sequence[Sample], tested: Sequence[DriftReport]) -> list[Stretch]:
    seen, stretches = set[str](), []
    for report in tested:
        first, last = report.batches or (0, 0)
        stretches.append(Stretch((first, last), _first_seen(arrived, seen, first, last)))
    return stretches


def _first_seen(arrived: Sequence[Sample], seen: set[str], first: int, last: int) -> list[Sample]:
    """Samples of batches first..last whose subjects are not among the seen; these are seen from now on."""
    samples = [sample for sample in arrived if first <= sample.batch <= last and sample.subject not in seen]
    seen.update(sample.subject for sample in samples)
    return samples


def _pending(arrivals: Arrivals, closed: Sequence[Stretch]) -> Stretch:
    """What came after the last closed window."""
    after = closed[-1].batches[1] if closed else arrivals.learnt
    seen = {sample.subject for stretch in closed for sample in stretch.samples}
    numbers = [batch.number for batch in arrivals.batches if batch.number > after]
    batches = (min(numbers, default=after), max(numbers, default=after))
    return Stretch(batches, _first_seen(arrivals.samples, seen, after + 1, batches[1]))
