"""What the server counts about itself, in Prometheus' text format. Each application has a registry of its own.

`create.RequestContext` counts requests; gauges about the store are read when they are asked for.
"""

import datetime
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from podium.resources.errors import PodiumError
from podium.resources.kinds import KINDS
from podium.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one application."""

    def __init__(self, store: Store, version: str, watchers: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "podium_api_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "podium_api_request_seconds",
            "From the first byte of a request to the start of its answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge("podium_api_requests_running", "Requests in progress.", registry=self.registry)
        Gauge("podium_build_info", "Always 1.", ["version"], registry=self.registry).labels(version).set(1)
        watching = Gauge("podium_api_watchers", "Open watches.", registry=self.registry)
        watching.set_function(watchers)
        self.registry.register(_StoreState(store))

    def text(self) -> bytes:
        """All of it, for a scrape."""
        return generate_latest(self.registry)


class _StoreState(Collector):
    """Reads the store at each scrape; while it does not answer, these are left out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kinds = [kind.name for kind in KINDS.values() if kind.reconciled]

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is read for the registration."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The newest version, and how long due work has waited."""
        try:
            version = self._store.current_version()
            due = self._store.next_due(self._kinds)
        except PodiumError:
            return
        yield GaugeMetricFamily(
            "podium_store_version", "resourceVersion of the newest commit.", value=version
        )
        lag = 0.0
        if due is not None:
            lag = max(0.0, (datetime.datetime.now(datetime.UTC) - due).total_seconds())
        yield GaugeMetricFamily(
            "podium_work_lag_seconds", "How long the work that is due longest has waited.", value=lag
        )
