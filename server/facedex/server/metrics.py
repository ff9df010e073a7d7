"""What Prometheus is told: calls, what came out of them, and how galleries, index and audit stand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from facedex.server.admission import HEALTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from facedex.indexer.galleries import Galleries

# From a vector's search to a photograph of the largest size on a busy machine.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is looked up when Prometheus asks."""

    galleries: Galleries
    loaded_share: Callable[[], float]
    audit_backlog: Callable[[], int]
    certificate_expires_at: Callable[[], datetime | None]


class Metrics:
    """The metrics of one server, in a registry of its own. No label names a person; galleries are named."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self._calls = Counter("facedex_calls", "Calls that ended, by status code.", ("method", "code"), registry=own)
        self._seconds = Histogram(
            "facedex_call_duration_seconds", "How long calls took.", ("method",), buckets=BUCKETS, registry=own
        )
        self._in_progress = Gauge("facedex_calls_in_progress", "Calls that are being answered.", registry=own)
        self._refused = Counter("facedex_refusals", "Calls that were refused, by reason.", ("reason",), registry=own)
        self._outcomes = Counter(
            "facedex_outcomes", "Faces searched or enrolled, by what came out.", ("gallery", "outcome"), registry=own
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def watch(self, standing: Standing) -> None:
        """From now on, galleries and audit are told of, too."""
        self.registry.register(StandingCollector(standing))

    def call_began(self) -> None:
        self._in_progress.inc()

    def call_ended(self, method: str, code: str, reason: str, seconds: float) -> None:
        self._in_progress.dec()
        if method.startswith(HEALTH):
            return
        short = method.rpartition(".")[2]
        self._calls.labels(short, code).inc()
        self._seconds.labels(short).observe(seconds)
        if reason:
            self._refused.labels(reason).inc()

    def answered(self, gallery: str, outcomes: Mapping[str, int]) -> None:
        """Of one answer: how often which outcome."""
        for outcome, count in outcomes.items():
            self._outcomes.labels(gallery, outcome).inc(count)


class StandingCollector(Collector):
    """How galleries, index, audit and certificate stand at this moment."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        standing, shadow = self._standing, self._standing.galleries.shadow
        info = GaugeMetricFamily("facedex_info", "Always 1; the version is a label.", labels=("version",))
        info.add_metric((version("facedex"),), 1)
        yield info
        yield GaugeMetricFamily(
            "facedex_loaded_share", "How much is loaded; 1 when calls are answered.", standing.loaded_share()
        )
        yield from self._of_galleries()
        yield CounterMetricFamily(
            "facedex_index_checked", "Live searches that were done again exactly.", shadow.checked
        )
        yield CounterMetricFamily("facedex_index_missed", "Identities that the fast index had missed.", shadow.missed)
        yield GaugeMetricFamily(
            "facedex_audit_backlog", "Audit entries that are not on disk yet.", standing.audit_backlog()
        )
        expires_at = standing.certificate_expires_at()
        if expires_at is not None:
            text = "When the TLS certificate ends, in seconds since 1970."
            yield GaugeMetricFamily("facedex_certificate_expiry_timestamp_seconds", text, expires_at.timestamp())

    def _of_galleries(self) -> Iterator[Metric]:
        templates = _by_gallery("facedex_gallery_templates", "Templates that a search may return.")
        revision = _by_gallery("facedex_gallery_revision", "How far the change log is applied.")
        drift = _by_gallery("facedex_gallery_promise_in_doubt", "1 where live searches contradict the certificate.")
        for gallery in self._standing.galleries.opened:
            name = (gallery.record.name,)
            templates.add_metric(name, gallery.template_count)
            revision.add_metric(name, gallery.revision)
            report = gallery.drift()
            if report is not None:
                drift.add_metric(name, 1 if report.suspicion else 0)
        yield from (templates, revision, drift)


def _by_gallery(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("gallery",))


@dataclass(slots=True)
class MetricsPage:
    """The page that Prometheus reads: plain HTTP, for whoever reaches the address."""

    address: str
    _server: WSGIServer = field(repr=False)
    _thread: threading.Thread = field(repr=False)

    @classmethod
    def open(cls, metrics: Metrics, host: str, port: int) -> MetricsPage:
        """Raises OSError where the address cannot be listened on; port 0 takes a free one."""
        server, thread = start_http_server(port, addr=host.strip("[]"), registry=metrics.registry)
        return cls(f"{host}:{server.server_port}", server, thread)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
