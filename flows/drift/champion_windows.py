"""What one champion makes of samples, for one look or many; knows nothing of when to look or what was said before."""

from collections.abc import Hashable, Sequence
from datetime import datetime
from typing import final

from continual.domain.adapters import AdapterVersion
from continual.domain.drift import PerformanceEvidence
from continual.domain.samples import Sample
from flows.drift.outcomes import KnownSite, measured_performance
from flows.drift.windows import window_of
from flows.updates.adapter_context import AdapterContext
from flows.updates.experiences import held_out
from monitoring import Window


@final
class ChampionWindows:
    """Windows, references and performance as a champion sees them. Holds its network, and its answers so far."""

    def __init__(self, context: AdapterContext, champion: AdapterVersion) -> None:
        self.adapter = context.name
        self.champion = champion
        self._context = context
        self._network = context.network_of(champion)
        known = {name: held_out(context, champion, name) for name in champion.trained_on}
        # A site may have no held-out subject left, a window no sample: they can be erased.
        self._references = {name: samples for name, samples in known.items() if samples}
        self._windows: dict[Hashable, Window] = {}
        self._performances: dict[Hashable, PerformanceEvidence] = {}

    def fill(self, site: str, arrived: Sequence[Sample]) -> None:
        """Make sure that activations of the references and of a site's samples are at hand."""
        groups = [*self._references.values(), arrived]
        everything = {sample.digest: sample for group in groups for sample in group}
        views = self._context.options.test_time_views
        self._context.fill(list(everything.values()), views, f"{site}: activations")

    def references(self) -> list[Window]:
        """The held-out samples of every site that the champion learnt."""
        return [self.window(name, samples) for name, samples in self._references.items()]

    def window(self, site: str, samples: Sequence[Sample], arrived: datetime | None = None) -> Window:
        """The window of some samples of a site, the first of which came then; activations must be at hand."""
        key = site, _as_known(samples)
        if key not in self._windows:
            self._windows[key] = window_of(self._context, self._network, site, samples, arrived)
        return self._windows[key]

    def performance(self, samples: Sequence[Sample]) -> PerformanceEvidence:
        """Measured on those of the samples that have labels; activations must be at hand."""
        key = _as_known(samples)
        if key not in self._performances:
            known = {name: KnownSite(each, self.window(name, each)) for name, each in self._references.items()}
            measured = measured_performance(self._context, self._network, self.champion, samples, known)
            self._performances[key] = measured
        return self._performances[key]


def _as_known(samples: Sequence[Sample]) -> Hashable:
    return tuple((sample.digest, sample.label, sample.mask) for sample in samples)
