"""How what arrived at a site is cut into windows, and which the next look is at; asks no registry and no clock.

Each sample is in one window and each subject in the first one that it came to; a window that was tested is closed. What
has been looked at stands in the drift reports of the champion, so there is nothing else to keep, or to lose.
"""

from collections.abc import Collection, Sequence
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
    """The samples of some intake batches whose subjects had not come before."""

    batches: tuple[int, ...]
    samples: Sequence[Sample]

    @property
    def subjects(self) -> int:
        """Number of different subjects."""
        return len({sample.subject for sample in self.samples})


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The intake batches of a site that the champion has not learnt, oldest first, and their samples.

    Held batches are not among them; `released` are those that were held until a person found them sound.
    """

    site: str
    batches: Sequence[Batch]
    samples: Sequence[Sample]
    released: frozenset[int] = frozenset()

    def until(self, at: datetime) -> "Arrivals":
        """What of it had come by then."""
        batches = [batch for batch in self.batches if batch.created_at <= at]
        numbers = {batch.number for batch in batches}
        return replace(self, batches=batches, samples=[s for s in self.samples if s.batch in numbers])

    def without(self, batches: Collection[int]) -> "Arrivals":
        """The rest, where these are left out."""
        left = [batch for batch in self.batches if batch.number not in batches]
        return replace(self, batches=left, samples=[s for s in self.samples if s.batch not in batches])

    def intake(self, stretch: Stretch) -> Intake:
        """What was offered for the first time in a stretch's batches, and what of it is held back to this day.

        Of released ones nothing counts, nor does what is offered again: a manifest that is read every night names all
        that ever came.
        """
        inside = [one for one in self.batches if one.number in stretch.batches and one.number not in self.released]
        quarantined = sum(batch.quarantined for batch in inside)
        return Intake(
            offered=quarantined + sum(batch.new for batch in inside),
            quarantined=quarantined,
            trusted=tuple(sample.batch in self.released for sample in stretch.samples),
        )

    def each_batch(self, stretch: Stretch) -> list[Stretch]:
        """The stretch batch by batch."""
        return [Stretch((n,), [s for s in stretch.samples if s.batch == n]) for n in stretch.batches]

    def whole(self, batches: tuple[int, ...]) -> Stretch:
        """All samples of some batches, also of subjects who came before."""
        return Stretch(batches, [sample for sample in self.samples if sample.batch in batches])

    def window(self, earlier: Sequence[DriftReport], batches: tuple[int, ...]) -> Stretch:
        """The window of these batches that came after the windows of earlier reports."""
        seen = {sample.subject for stretch in _closed(self.samples, earlier) for sample in stretch.samples}
        return Stretch(batches, _first_seen(self.samples, seen, batches))

    def pending(self, tested: Sequence[DriftReport]) -> Stretch:
        """What no closed window holds."""
        closed = _closed(self.samples, tested)
        return _pending(self, closed)

    def unseen(self, tested: Sequence[DriftReport]) -> "Arrivals":
        """What no closed window holds: later batches, and in closed ones new images of subjects seen before.

        What was held back of a closed batch was judged with its window, and does not count again.
        """
        closed = _closed(self.samples, tested)
        taken = {number for stretch in closed for number in stretch.batches}
        looked_at = {sample.digest for stretch in closed for sample in stretch.samples}
        samples = [sample for sample in self.samples if sample.digest not in looked_at]
        left = {sample.batch for sample in samples}
        batches = [
            replace(batch, new=0, quarantined=0) if batch.number in taken else batch
            for batch in self.batches
            if batch.number in left or batch.number not in taken
        ]
        return replace(self, batches=batches, samples=samples)

    def began(self, samples: Sequence[Sample]) -> datetime | None:
        """When the first batch came that one of the samples is of; None where there is no sample."""
        first = min((sample.batch for sample in samples), default=None)
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
    due = now or pending.subjects >= plan.window_subjects or is_old(arrivals.began(pending.samples), plan, at)
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
    return arrivals.began(arrivals.pending(tested).samples)


def _closed(arrived: Sequence[Sample], tested: Sequence[DriftReport]) -> list[Stretch]:
    seen, stretches = set[str](), []
    for report in tested:
        batches = report.batches or ()
        stretches.append(Stretch(batches, _first_seen(arrived, seen, batches)))
    return stretches


def _first_seen(arrived: Sequence[Sample], seen: set[str], batches: Sequence[int]) -> list[Sample]:
    """Samples of these batches whose subjects are not among the seen; these are seen from now on."""
    wanted = frozenset(batches)
    samples = [sample for sample in arrived if sample.batch in wanted and sample.subject not in seen]
    seen.update(sample.subject for sample in samples)
    return samples


def _pending(arrivals: Arrivals, closed: Sequence[Stretch]) -> Stretch:
    """What is in no closed window: mostly what came after the last, but also what was released since."""
    seen = {sample.subject for stretch in closed for sample in stretch.samples}
    taken = {number for stretch in closed for number in stretch.batches}
    batches = tuple(batch.number for batch in arrivals.batches if batch.number not in taken)
    return Stretch(batches, _first_seen(arrivals.samples, seen, batches))
