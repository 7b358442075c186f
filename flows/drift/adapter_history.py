"""An adapter's past as the registry kept it: champions, arrivals, reports, updates; knows nothing of other plans."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median
from typing import final

from continual.domain.adapters import CHAMPION, AdapterVersion
from continual.domain.samples import Sample
from flows.drift.arrivals import Arrivals
from flows.drift.champion_windows import ChampionWindows
from flows.drift.looks import MOST_REPORTS, arrivals_of
from flows.updates.adapter_context import AdapterContext, options_from_record
from flows.updates.occasions import MOST_UPDATES, judged_updates


def known_then(samples: Sequence[Sample], late: Mapping[str, datetime], at: datetime) -> list[Sample]:
    """The samples without the labels that came after a time; a label that is not `late` came with its image."""
    return [replace(one, label=None) if late.get(one.digest, at) > at else one for one in samples]


@final
class AdapterHistory:
    """What was, at any time since the first release. Holds what champions made of samples, for whoever asks again."""

    def __init__(self, context: AdapterContext) -> None:
        registry, name = context.registry, context.name
        self.adapter = name
        self.sites = registry.samples.sites()
        self.moves = registry.adapters.history(name, CHAMPION)
        self.batches = {site: registry.samples.batches(site) for site in self.sites}
        numbers = sorted({move.to_version for move in self.moves})
        self.versions = {number: registry.adapters.get(name, number) for number in numbers}
        self.plans = {
            number: options_from_record(version.record["options"]).plan for number, version in self.versions.items()
        }
        self.reports = {
            site: [r for r in reversed(registry.drift.list(site, MOST_REPORTS)) if r.adapter == name]
            for site in self.sites
        }
        self.updates = judged_updates([*reversed(registry.updates.list(name, MOST_UPDATES))])
        self._late = {site: registry.late_labels.arrivals(site) for site in self.sites}
        self.releases = {
            site: {hold.batch: hold.released_at for hold in registry.holds.list(site) if hold.released_at is not None}
            for site in self.sites
        }
        self._context = context
        self._windows: dict[int, ChampionWindows] = {}
        self._arrivals: dict[tuple[int, str], Arrivals] = {}

    @property
    def until(self) -> datetime | None:
        """The last time that anything was recorded; None for no history."""
        times = [move.moved_at for move in self.moves]
        times += [batch.created_at for batches in self.batches.values() for batch in batches]
        times += [r.created_at for reports in self.reports.values() for r in reports if r.created_at is not None]
        times += [at for site in self.sites for at in self.events(site)]
        times += [update.finished_at for update in self.updates if update.finished_at is not None]
        return max(times, default=None)

    def events(self, site: str) -> list[datetime]:
        """When something was learnt of a site without an image coming: late labels, releases of held batches."""
        return [*self._late[site].values(), *self.releases[site].values()]

    @property
    def seconds_per_update(self) -> float | None:
        """Median over the updates that the gate judged; None where there is none."""
        seconds = [update.seconds["total"] for update in self.updates if "total" in update.seconds]
        return median(seconds) if seconds else None

    def champion_at(self, at: datetime) -> AdapterVersion | None:
        """The version in service at a time; None before the first release."""
        moves = [move for move in self.moves if move.moved_at <= at]
        return self.versions[moves[-1].to_version] if moves else None

    def arrivals(self, champion: AdapterVersion, site: str, at: datetime) -> Arrivals:
        """What had come to a site by then since the champion learnt it, as it was known by then; none of it is held."""
        key = champion.number, site
        if key not in self._arrivals:
            self._arrivals[key] = arrivals_of(self._context, champion, site, with_held=True)
        come = self._arrivals[key].until(at)
        released = frozenset(batch for batch, then in self.releases[site].items() if then <= at)
        return replace(come, samples=known_then(come.samples, self._late[site], at), released=released)

    def windows_of(self, champion: AdapterVersion) -> ChampionWindows:
        """What a champion makes of samples."""
        if champion.number not in self._windows:
            self._windows[champion.number] = ChampionWindows(self._context, champion)
        return self._windows[champion.number]
