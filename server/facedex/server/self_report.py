"""What a running server says of itself over the wire and on its page of metrics, for `facedex-server status`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from facedex.v1 import gallery_pb2, gallery_pb2_grpc, operations_pb2, operations_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

SERVING = "SERVING"
UNDER_WAY = frozenset({operations_pb2.JOB_STATE_WAITING, operations_pb2.JOB_STATE_RUNNING})
PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """How a gallery stands: `lag` is how many changes of the log the index has not applied yet."""

    name: str
    templates: int
    revision: int
    lag: int


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job that is not done. `progress` is from 0 to 1; `is_abandoned`: nobody works on it, though somebody should."""

    id: int
    kind: str
    gallery: str
    progress: float
    is_abandoned: bool


@dataclass(frozen=True, slots=True)
class CallReport:
    """Calls since the server started, by its metrics; `refused` by reason, `mean_ms` over all methods."""

    count: int
    mean_ms: float
    in_progress: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class SelfReport:
    """All of it.

    health: by service, "" is the whole server; SERVING, NOT_SERVING, or what else grpc.health.v1 knows.
    jobs: those under way; None where the key may not list them.
    calls: None where no page of metrics was given.
    """

    address: str
    is_encrypted: bool
    version: str
    detector: str
    embedder: str
    devices: str
    loaded_share: float
    health: dict[str, str]
    galleries: tuple[GalleryReport, ...]
    jobs: tuple[JobReport, ...] | None
    calls: CallReport | None

    @property
    def is_well(self) -> bool:
        """Whether every service answers calls."""
        return set(self.health.values()) == {SERVING}


def report_of(
    channel: grpc.Channel,
    *,
    address: str,
    is_encrypted: bool,
    services: Iterable[str],
    metrics: str | None = None,
    timeout_seconds: float = 10.0,
) -> SelfReport:
    """Asks a server about itself; `metrics` is the address of its page for Prometheus.

    Raises:
        grpc.RpcError: it does not answer, or not to this key.
        OSError: the page of metrics cannot be read.

    """
    operations = operations_pb2_grpc.OperationsServiceStub(channel)
    info = operations.GetServerInfo(operations_pb2.GetServerInfoRequest(), timeout=timeout_seconds)
    return SelfReport(
        address=address,
        is_encrypted=is_encrypted,
        version=info.version,
        detector=info.detector.name,
        embedder=info.embedder.name,
        devices=info.devices,
        loaded_share=info.loaded_share,
        health=_health(channel, services, timeout_seconds),
        galleries=tuple(_galleries(channel, info.indexes, timeout_seconds)),
        jobs=_jobs(operations, timeout_seconds),
        calls=None if metrics is None else calls_of(_page(metrics, timeout_seconds)),
    )


def _health(channel: grpc.Channel, services: Iterable[str], timeout_seconds: float) -> dict[str, str]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    asked = {
        each: stub.Check(health_pb2.HealthCheckRequest(service=each), timeout=timeout_seconds) for each in services
    }
    names = health_pb2.HealthCheckResponse.ServingStatus
    return {service: names.Name(answer.status) for service, answer in asked.items()}


def _galleries(
    channel: grpc.Channel, indexes: Iterable[operations_pb2.IndexInfo], timeout_seconds: float
) -> Iterator[GalleryReport]:
    """The index as it was a moment before the store, so a lag may be that of a change in between."""
    applied = {each.gallery: each for each in indexes}
    stub = gallery_pb2_grpc.GalleryServiceStub(channel)
    request = gallery_pb2.ListGalleriesRequest(page_size=PAGE_SIZE)
    while True:
        page = stub.ListGalleries(request, timeout=timeout_seconds)
        for each in page.galleries:
            index = applied.get(each.name, operations_pb2.IndexInfo())
            lag = max(0, each.revision - index.revision)
            yield GalleryReport(each.name, index.template_count, each.revision, lag)
        if not page.next_page_token:
            return
        request = gallery_pb2.ListGalleriesRequest(page_size=PAGE_SIZE, page_token=page.next_page_token)


def _jobs(
    operations: operations_pb2_grpc.OperationsServiceStub, timeout_seconds: float
) -> tuple[JobReport, ...] | None:
    """Of the newest hundred, those that are not done."""
    try:
        jobs = operations.ListJobs(operations_pb2.ListJobsRequest(), timeout=timeout_seconds).jobs
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            return None
        raise
    return tuple(
        JobReport(each.id, each.kind, each.gallery, each.progress, each.is_abandoned)
        for each in jobs
        if each.state in UNDER_WAY
    )


def _page(address: str, timeout_seconds: float) -> str:
    with urlopen(f"http://{address}/metrics", timeout=timeout_seconds) as page:
        text: bytes = page.read()
    return text.decode()


def calls_of(page: str) -> CallReport:
    """What a page of metrics says of calls."""
    families = {each.name: each for each in text_string_to_metric_families(page)}
    seconds = _sum(families, "facedex_call_duration_seconds", "_sum")
    count = _sum(families, "facedex_call_duration_seconds", "_count")
    refused: dict[str, int] = {}
    for sample in _samples(families, "facedex_refusals", "_total"):
        refused[sample.labels["reason"]] = int(sample.value)
    return CallReport(
        count=int(count),
        mean_ms=1_000 * seconds / count if count else 0.0,
        in_progress=int(_sum(families, "facedex_calls_in_progress", "")),
        refused=refused,
    )


def _sum(families: dict[str, Metric], name: str, suffix: str) -> float:
    return float(sum(sample.value for sample in _samples(families, name, suffix)))


def _samples(families: dict[str, Metric], name: str, suffix: str) -> Iterator[Any]:
    with suppress(KeyError):
        yield from (each for each in families[name].samples if each.name == name + suffix)
