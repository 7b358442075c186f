"""What Prometheus scrapes: requests, champions, drift, quarantine, alerts; knows nothing of patients."""

import time
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from continual.domain.action_words import is_alarm
from continual.domain.adapters import CHAMPION
from continual.domain.drift import DriftReport, Verdict
from registry import Registry

LATENCY_BUCKETS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000)
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})
Latest: TypeAlias = Mapping[tuple[str, str], DriftReport]
"""The newest report by site and adapter."""


class Measures:
    """The counters of one service; each service has its own, so two in one process do not collide."""

    def __init__(self, registry: Registry) -> None:
        self._collected = CollectorRegistry()
        self.requests = Counter(
            "continual_requests", "Answered requests", ("method", "route", "status"), registry=self._collected
        )
        self.latency_ms = Histogram(
            "continual_request_latency_ms",
            "Milliseconds from a request to the end of its answer; long polls are left out",
            ("route",),
            buckets=LATENCY_BUCKETS_MS,
            registry=self._collected,
        )
        self._collected.register(_RegistryState(registry))

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._collected)


class _RegistryState(Collector):
    """Gauges read from the registry at each scrape, so they hold after a restart."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> Iterator[Metric]:
        """Nothing: without this, registering would query the database."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Samples by adapter, by site, and by site and adapter."""
        champion = GaugeMetricFamily(
            "continual_champion_version", "Version that the champion alias points to", labels=["adapter"]
        )
        for name in self._registry.adapters.names():
            number = self._registry.adapters.aliases(name).get(CHAMPION)
            if number is not None:
                champion.add_metric([name], number)
        yield champion
        latest = _standing(self._registry.drift.latest_of_each())
        yield from self._sites(latest)
        yield from self._verdicts(latest)
        deliveries = GaugeMetricFamily(
            "continual_alert_deliveries", "Drift reports on their way outside, by state", labels=["state"]
        )
        for state, count in self._registry.deliveries.counts().items():
            deliveries.add_metric([state.value], count)
        yield deliveries

    def _verdicts(self, latest: Latest) -> Iterator[Metric]:
        labels = ["site", "adapter", "verdict"]
        filed = CounterMetricFamily(
            "continual_drift_reports", "Drift reports filed; one that repeats the last is not", labels=labels
        )
        verdicts = GaugeMetricFamily(
            "continual_drift_verdict", "1 for an adapter's latest verdict on a site, 0 for the others", labels=labels
        )
        looked = GaugeMetricFamily(
            "continual_drift_last_look_timestamp_seconds",
            "When an adapter's latest report on a site was filed",
            labels=["site", "adapter"],
        )
        # Every verdict has a series from the first report on: rate() misses what a new series begins with.
        counts = self._registry.drift.counts()
        for site, adapter in dict.fromkeys((site, adapter) for site, adapter, _ in counts):
            for verdict in Verdict:
                filed.add_metric([site, adapter, verdict.value], counts.get((site, adapter, verdict), 0))
        for (site, adapter), report in latest.items():
            for verdict in Verdict:
                verdicts.add_metric([site, adapter, verdict.value], float(verdict is report.verdict))
            if report.created_at is not None:
                looked.add_metric([site, adapter], report.created_at.timestamp())
        yield from (filed, verdicts, looked)

    def _sites(self, latest: Latest) -> Iterator[Metric]:
        labels = ["site", "adapter"]
        alarm = GaugeMetricFamily(
            "continual_drift_alarm", "1 while the latest verdict asks for something to be done", labels=labels
        )
        evidence = GaugeMetricFamily(
            "continual_drift_evidence", "Evidence of drift since the promotion, 1 says nothing", labels=labels
        )
        limit = GaugeMetricFamily("continual_drift_evidence_limit", "Evidence that calls drift", labels=labels)
        held_back = GaugeMetricFamily(
            "continual_quarantined_images", "Files held back at intake, not stored", labels=["site"]
        )
        for (site, adapter), report in latest.items():
            alarm.add_metric([site, adapter], float(is_alarm(report.action)))
            if report.over_time is not None:
                evidence.add_metric([site, adapter], report.over_time.value)
                limit.add_metric([site, adapter], report.over_time.threshold)
        looked_at = {site for site, _ in latest}
        sites = self._registry.samples.sites()
        # A scanner whose every image is refused has no stored sample, and is the one to hear of.
        refused = self._registry.samples.count_quarantined()
        for site in dict.fromkeys([*sites, *refused]):
            held_back.add_metric([site], refused.get(site, 0))
        for site in sites:
            if site not in looked_at:
                alarm.add_metric([site, ""], 0.0)
        yield from (alarm, evidence, limit, held_back)


def _standing(latest: Latest) -> Latest:
    """All but reports that name no adapter where an adapter has looked since: no later look would end their alarm."""
    named: dict[str, int] = {}
    for (site, adapter), report in latest.items():
        if adapter:
            named[site] = max(named.get(site, 0), report.id or 0)
    return {
        (site, adapter): report
        for (site, adapter), report in latest.items()
        if adapter or (report.id or 0) > named.get(site, 0)
    }


class Measured:
    """ASGI layer that counts and times requests by route template (a plain one: Starlette's base class is slow)."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # A client may invent methods; each would be a new series for ever.
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._measures.requests.labels(method, route, str(status)).inc()
            if b"wait=" not in scope["query_string"]:
                self._measures.latency_ms.labels(route).observe((time.perf_counter() - began) * 1000)
