"""New images of a site one by one: at which the watch alarms; files nothing and calls no verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from continual.domain.errors import NotFoundError
from continual.domain.samples import Sample
from flows.drift.arrivals import Arrivals
from flows.drift.champion_windows import ChampionWindows
from flows.drift.looks import arrivals_of
from flows.updates.adapter_context import context_of
from flows.workplace import Workplace
from monitoring import Window
from monitoring.online import watch
from monitoring.windows import select


@dataclass(frozen=True, slots=True)
class WatchAlarm:
    """The image, counted from 1 in order of arrival, at which the watch alarmed; its batch and when that came."""

    image: int
    batch: int
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class WatchReport:
    """A site's images since the champion learnt it; after each alarm the watch began anew.

    Where nothing changes there would be about `images / mean_run_images` alarms.
    """

    site: str
    version: int
    images: int
    mean_run_images: float
    alarms: tuple[WatchAlarm, ...]


def watch_site(workplace: Workplace, adapter: str, site: str, mean_run_images: float) -> WatchReport:
    """Go through what arrived at a site since the champion learnt it.

    Raises NotFoundError for a site that the champion never learnt: there is nothing to hold its images against.
    """
    context = context_of(workplace, adapter)
    champion = workplace.registry.adapters.current(adapter)
    arrivals = arrivals_of(context, champion, site)
    windows = ChampionWindows(context, champion)
    windows.fill(site, arrivals.samples)
    reference = next((window for window in windows.references() if window.site == site), None)
    if reference is None:
        known = ", ".join(champion.trained_on)
        raise NotFoundError(f"version {champion.number} has not learnt site {site!r}, only {known}; use `drift show`")
    ordered = sorted(arrivals.samples, key=_arrival)
    if not ordered:
        return WatchReport(site, champion.number, 0, mean_run_images, ())
    found = _alarms(reference, windows.window(site, ordered), mean_run_images, context.options.plan.seed)
    alarms = tuple(_alarm(arrivals, ordered, place) for place in found)
    return WatchReport(site, champion.number, len(ordered), mean_run_images, alarms)


def _arrival(sample: Sample) -> tuple[int, str, str]:
    """By batch; within one by when the image was taken, where that is known."""
    return sample.batch, "" if sample.acquired_at is None else sample.acquired_at.isoformat(), sample.digest


def _alarms(reference: Window, images: Window, mean_run_images: float, seed: int) -> list[int]:
    """Places of the images at which the watch alarms."""
    watching = watch(reference, mean_run_images, seed)
    count, begin, found = len(images.subjects), 0, list[int]()
    while begin < count:
        rest = select(images, np.arange(count) >= begin)
        evidence, _ = watching.follow(watching.start(), rest)
        over = np.flatnonzero(evidence > watching.threshold)
        if not over.size:
            break
        found.append(begin + int(over[0]))
        begin = found[-1] + 1
    return found


def _alarm(arrivals: Arrivals, ordered: Sequence[Sample], place: int) -> WatchAlarm:
    sample = ordered[place]
    came = next(batch.created_at for batch in arrivals.batches if batch.number == sample.batch)
    return WatchAlarm(place + 1, sample.batch, came)
