"""The composition root: everything that runs in a server is made here, from one `Settings`."""

from __future__ import annotations

import gc
import os
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from facedex.indexer.assembly import assemble_galleries, make_data_folder
from facedex.indexer.devices import TorchHardware, chosen_devices
from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.failpoints import fail_point
from facedex.indexer.indexes import SearchSettings
from facedex.indexer.jobs.calibration import certificate_of_gallery
from facedex.indexer.jobs.runner import JobRunner
from facedex.indexer.store.store import Store
from facedex.indexer.store.vault import Vault
from facedex.server.access_rules import RULES
from facedex.server.admission import Admission, Places
from facedex.server.audit_writer import AuditWriter
from facedex.server.calibration_service import CALIBRATE, CalibrationService
from facedex.server.enrolment_service import EnrolmentService
from facedex.server.erasure_service import ErasureService
from facedex.server.exposure import check_exposure
from facedex.server.follower import Follower
from facedex.server.gallery_service import GalleryService
from facedex.server.gate import Gate
from facedex.server.identification_service import IdentificationService
from facedex.server.interceptor import Around, CallInterceptor
from facedex.server.key_ring import KeyRing
from facedex.server.meter import Meter
from facedex.server.metrics import Metrics, MetricsPage, Standing
from facedex.server.operations_service import OperationsService
from facedex.server.patience import Patience
from facedex.server.readiness import Readiness
from facedex.server.recorder import Recorder
from facedex.server.stop_signal import StopSignal
from facedex.server.tls import Certificates
from facedex.server.tracing import tracing_to
from facedex.v1 import (
    calibration_pb2,
    calibration_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    erasure_pb2,
    erasure_pb2_grpc,
    gallery_pb2,
    gallery_pb2_grpc,
    identification_pb2,
    identification_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from facedex.indexer.devices import Hardware
    from facedex.indexer.galleries import Galleries
    from facedex.indexer.store.records import JobRecord
    from facedex.server.settings import Settings

# How many objects are added before they are looked through for cycles. With Python's 700, enrolling a vector takes 3 % longer.
NEW_OBJECTS = 20_000

logger = structlog.get_logger("facedex.server")

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (gallery_pb2, "GalleryService"),
        (enrolment_pb2, "EnrolmentService"),
        (identification_pb2, "IdentificationService"),
        (calibration_pb2, "CalibrationService"),
        (operations_pb2, "OperationsService"),
        (erasure_pb2, "ErasureService"),
    )
)
# Threads beyond the admitted calls, so that a call that is turned away never waits for one.
SPARE_THREADS = 16
LARGEST_PORT = 65_535
MAX_REFLECTIONS = 8
MAX_HEALTH_CHECKS = 16
MAX_HEALTH_WATCHES = 16
# A peer that vanished without a word is noticed, and what it held is free again, after this much and as much again.
KEEPALIVE_MILLISECONDS = 20_000


class AddressInvalid(Exception):
    """What is to be listened on is no address with a port."""


class AddressInUse(Exception):
    """The address cannot be listened on."""

    def __init__(self, listen: str) -> None:
        super().__init__(f"cannot listen on {listen}: another program does, or the address is not of this machine")


class App:
    """A server that listens, from construction until `stop`."""

    def __init__(self, settings: Settings, hardware: Hardware | None = None) -> None:
        devices = chosen_devices(settings.device, hardware or TorchHardware())
        make_data_folder(settings.data)
        self._settings = settings
        self._used_devices = str(devices)
        self._tracing = tracing_to(settings.otlp_endpoint)
        self._vault = Vault.open(settings.data, settings.data_keys, settings.template_secret)
        self._store = Store.open(
            settings.database_url,
            reached=fail_point(os.environ),
            vault=self._vault,
            horizon=settings.erasure_horizon,
            traced=self._tracing.step,
        )
        keys = KeyRing(self._store.api_keys.all, now=self._store.now)
        host, _ = parted_address(settings.listen)
        check_exposure(host, has_tls=settings.tls is not None, has_keys=keys.is_used, allowed=settings.openness)
        self._galleries = assemble_galleries(
            self._store,
            data=settings.data,
            detector=settings.detector,
            embedder=settings.embedder,
            limits=settings.image_limits,
            workers=settings.workers,
            smallest_face_px=settings.smallest_face_px,
            search=SearchSettings(threads=settings.workers, check_every=settings.check_every),
            devices=devices,
            milvus=settings.milvus,
        )
        if settings.milvus is not None and settings.data_keys is not None:
            logger.warning("data keys do not reach the vector engine", advice="encrypt the disks of Milvus")
        self._health = health.HealthServicer()
        self._patience = Patience()
        self._readiness = Readiness(self._galleries.loaded_share)
        # Beside a device, most of them wait for it; the cores are shared out by the galleries' workbench all the same.
        lookers = settings.workers * devices.callers_per_core
        self._lookers = futures.ThreadPoolExecutor(lookers, thread_name_prefix="look")
        self._meter = Meter(self._store.api_keys.add_calls, now=self._store.now)
        self._audit = AuditWriter(self._store.audit.write, self._store.audit.testify)
        self._recorder = Recorder(self._audit, RULES, choice=settings.audit, now=self._store.now)
        self._certificates = None if settings.tls is None else Certificates(settings.tls)
        self._metrics = Metrics()
        self._metrics.watch(
            Standing(
                self._galleries,
                loaded_share=lambda: self._readiness.share,
                audit_backlog=lambda: self._audit.backlog,
                certificate_expires_at=self._certificate_end,
            )
        )
        around = Around(
            gate=Gate(keys, self._meter, RULES),
            metrics=self._metrics,
            recorder=self._recorder,
            places=_places(settings),
            patience=self._patience,
            readiness=self._readiness,
            tracing=self._tracing,
        )
        self._server = build_server(settings, self._galleries, self._health, around, self._lookers)
        self.address = _bind(self._server, settings.listen, self._certificates)
        self._metrics_page = self._open_metrics_page(settings.metrics_listen)
        self._jobs = JobRunner(self._store, {CALIBRATE: self._calibrate})
        self._follower = Follower(self._galleries, interval_seconds=settings.follow_interval_seconds)

    def start(self) -> None:
        """Loads every gallery, then serves. Until then, callers are told how far it is."""
        logger.info("devices are chosen", asked=self._settings.device.value, used=self._used_devices)
        self._tell_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._audit.start()
        self._server.start()
        self._patience.start()
        self._galleries.follow()
        self._readiness.declare()
        self._follower.start()
        self._jobs.start()
        self._tell_health(health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Takes no new calls, lets those in flight end, and closes."""
        deadline = time.monotonic() + self._settings.drain_seconds
        self._tell_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._patience.lose()
        self._patience.wait_for_streams(self._settings.drain_seconds)
        self._server.stop(max(0.0, deadline - time.monotonic())).wait()
        self._patience.stop()
        self._lookers.shutdown()
        self._follower.stop()
        self._jobs.stop()
        if self._metrics_page is not None:
            self._metrics_page.close()
        self._forget_no_calls()
        self._recorder.flush()
        self._audit.stop()
        self._store.close()
        self._vault.close()
        self._tracing.close()

    @property
    def metrics_address(self) -> str:
        """Where Prometheus reads; empty where there is no such page."""
        return "" if self._metrics_page is None else self._metrics_page.address

    def _open_metrics_page(self, listen: str | None) -> MetricsPage | None:
        if listen is None:
            return None
        host, port = parted_address(listen)
        try:
            return MetricsPage.open(self._metrics, host, port)
        except OSError:
            raise AddressInUse(listen) from None

    def _certificate_end(self) -> datetime | None:
        return None if self._certificates is None else self._certificates.expires_at

    def _forget_no_calls(self) -> None:
        try:
            self._meter.flush()
        except StoreUnavailable as error:
            logger.warning("the calls of the last second are not counted", cause=error.cause)

    def _calibrate(self, job: JobRecord, report: Callable[[float], None]) -> dict[str, Any]:
        gallery = self._galleries.get(job.gallery)
        detector = self._galleries.pipeline.detector.manifest
        certificate = certificate_of_gallery(gallery, detector=detector, report=report)
        return {"certificate": certificate.digest, "revision": gallery.certify(certificate)}

    def _tell_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)


def _places(settings: Settings) -> Places:
    return Places(
        requests=Admission(settings.max_concurrent_requests),
        streams=Admission(settings.max_concurrent_streams),
        reflections=Admission(MAX_REFLECTIONS),
        health_checks=Admission(MAX_HEALTH_CHECKS),
        health_watches=Admission(MAX_HEALTH_WATCHES),
    )


def build_server(
    settings: Settings,
    galleries: Galleries,
    health_servicer: health.HealthServicer,
    around: Around,
    lookers: futures.Executor,
) -> grpc.Server:
    gate, patience, readiness = around.gate, around.patience, around.readiness
    server = grpc.server(
        futures.ThreadPoolExecutor(around.places.count + SPARE_THREADS, thread_name_prefix="call"),
        interceptors=[CallInterceptor(around)],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MILLISECONDS),
            ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a lottery
        ],
    )
    gallery_pb2_grpc.add_GalleryServiceServicer_to_server(GalleryService(galleries, gate), server)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(
        EnrolmentService(galleries, around.recorder, patience, lookers), server
    )
    identification_pb2_grpc.add_IdentificationServiceServicer_to_server(IdentificationService(galleries), server)
    calibration_pb2_grpc.add_CalibrationServiceServicer_to_server(CalibrationService(galleries), server)
    operations_pb2_grpc.add_OperationsServiceServicer_to_server(
        OperationsService(galleries, settings, readiness, gate), server
    )
    erasure_pb2_grpc.add_ErasureServiceServicer_to_server(ErasureService(galleries, gate), server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def parted_address(listen: str) -> tuple[str, int]:
    """Host and port. Raises AddressInvalid."""
    host, colon, wanted = listen.rpartition(":")
    # gRPC itself would take a default for a port that is missing, and another one for a port that is too large.
    if not (host and colon and wanted.isdecimal() and int(wanted) <= LARGEST_PORT):
        raise AddressInvalid(f"cannot listen on {listen!r}: give an address and a port up to {LARGEST_PORT}")
    return host, int(wanted)


def _bind(server: grpc.Server, listen: str, certificates: Certificates | None) -> str:
    host, _ = parted_address(listen)
    try:
        if certificates is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, certificates.credentials())
    except RuntimeError:
        port = 0
    if port == 0:
        raise AddressInUse(listen)
    return f"{host}:{port}"


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. `announce` is called with the address once calls are answered."""
    app = App(settings)
    stop = StopSignal()
    app.start()
    _collect_garbage_seldom()
    if app.metrics_address:
        logger.info("metrics are served", address=app.metrics_address)
    announce(app.address)
    stop.wait()
    logger.info("draining", seconds=settings.drain_seconds)
    app.stop()


def _collect_garbage_seldom() -> None:
    """What a server is made of stays, so only what calls leave is looked through for cycles, of which they leave few."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
