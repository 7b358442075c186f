"""What Prometheus scrapes: requests, latency, champions, drift alarms, quarantine; knows nothing of patients."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from continual.domain.action_words import is_alarm
from continual.domain.adapters import CHAMPION
from registry import Registry

LATENCY_BUCKETS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000)
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})


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
        """One sample per adapter and per site."""
        champion = GaugeMetricFamily(
            "continual_champion_version", "Version that the champion alias points to", labels=["adapter"]
        )
        for name in self._registry.adapters.names():
            number = self._registry.adapters.aliases(name).get(CHAMPION)
            if number is not None:
                champion.add_metric([name], number)
        yield champion
        yield from self._sites()

    def _sites(self) -> Iterator[Metric]:
        alarm = GaugeMetricFamily(
            "continual_drift_alarm", "1 while the latest verdict asks for something to be done", labels=["site"]
        )
        evidence = GaugeMetricFamily(
            "continual_drift_evidence", "Evidence of drift since the promotion, 1 says nothing", labels=["site"]
        )
        limit = GaugeMetricFamily("continual_drift_evidence_limit", "Evidence that calls drift", labels=["site"])
        held_back = GaugeMetricFamily("continual_quarantined_images", "Images in quarantine", labels=["site"])
        for site in self._registry.samples.sites():
            report = self._registry.drift.latest(site)
            alarm.add_metric([site], float(report is not None and is_alarm(report.action)))
            if report is not None and report.over_time is not None:
                evidence.add_metric([site], report.over_time.value)
                limit.add_metric([site], report.over_time.threshold)
            held_back.add_metric([site], len(self._registry.samples.quarantine(site)))
        yield from (alarm, evidence, limit, held_back)


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
