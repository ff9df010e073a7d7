"""A server that is still loading says so, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from tests.server.faces import VectorMaker, enrol_request
from tests.server.running_server import Wire, refusal

from facedex.server.app import App
from facedex.server.readiness import Loading, Readiness
from facedex.server.settings import Settings
from facedex.v1 import gallery_pb2

LOADING_SECONDS = 60


class HalfLoaded:
    """A server whose galleries are loaded when the test says so."""

    def __init__(self, data: Path) -> None:
        self.app = App(Settings(data, listen="127.0.0.1:0"))
        self._go_on = threading.Event()
        follow = self.app._galleries.follow

        def wait_and_follow() -> None:
            assert self._go_on.wait(LOADING_SECONDS)
            follow()

        self.app._galleries.follow = wait_and_follow  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self.app.start)
        self._thread.start()

    def finish_loading(self) -> None:
        self._go_on.set()
        self._thread.join()


@pytest.fixture
def half_loaded(tmp_path: Path) -> Iterator[HalfLoaded]:
    server = HalfLoaded(tmp_path)
    yield server
    server.finish_loading()
    server.app.stop()


def test_a_server_that_is_loading_asks_callers_to_come_back(half_loaded: HalfLoaded) -> None:
    with Wire(half_loaded.app.address) as wire:
        grpc.channel_ready_future(wire.channel).result(LOADING_SECONDS)
        assert wire.health_of("") == health_pb2.HealthCheckResponse.NOT_SERVING
        refused = refusal(lambda: wire.galleries.ListGalleries(gallery_pb2.ListGalleriesRequest()))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "LOADING")
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
        assert wire.info().loaded_share < 1


def test_a_server_that_has_loaded_answers(half_loaded: HalfLoaded) -> None:
    half_loaded.finish_loading()
    with Wire(half_loaded.app.address) as wire:
        assert wire.health_of("") == health_pb2.HealthCheckResponse.SERVING
        wire.galleries.ListGalleries(gallery_pb2.ListGalleriesRequest(), timeout=20)
        assert wire.info().loaded_share == 1


def test_what_is_loaded_is_told_as_a_share() -> None:
    readiness = Readiness(lambda: 0.45)
    with pytest.raises(Loading, match="45% done"):
        readiness.require("/facedex.v1.IdentificationService/Identify")
    readiness.require("/grpc.health.v1.Health/Check")
    readiness.declare()
    readiness.require("/facedex.v1.IdentificationService/Identify")
    assert readiness.share == 1


def test_the_server_tells_how_each_gallery_is_searched(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", vectors.vector(1)))
    (index,) = [each for each in wire.info().indexes if each.gallery == gallery]
    assert (index.template_count, index.bits_per_component) == (1, 0)
    assert index.reason.startswith("exact")
    assert index.operating_score > 0
