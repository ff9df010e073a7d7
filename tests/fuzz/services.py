"""The methods of each service under fuzz: bytes over a real connection to a real server in this process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from tests.server.faces import VectorMaker

from facedex.indexer.consistency.check import check_gallery
from facedex.indexer.vision.decode import ImageLimits
from facedex.server.app import App
from facedex.server.settings import Settings
from facedex.v1 import (
    calibration_pb2,
    enrolment_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

SERVICES: dict[str, ServiceDescriptor] = {
    "galleries": gallery_pb2.DESCRIPTOR.services_by_name["GalleryService"],
    "enrolment": enrolment_pb2.DESCRIPTOR.services_by_name["EnrolmentService"],
    "identification": identification_pb2.DESCRIPTOR.services_by_name["IdentificationService"],
    "calibration": calibration_pb2.DESCRIPTOR.services_by_name["CalibrationService"],
    "operations": operations_pb2.DESCRIPTOR.services_by_name["OperationsService"],
}
# What a call may be answered with. INTERNAL and UNKNOWN are the server's confession that it did not foresee something.
PROPER = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
CALL_SECONDS = 60
# The gallery that no input names: what it answers must stay right.
KEPT = "kept-by-the-witness"
# The gallery that the corpus works in; inputs may change or delete it.
OPEN_GALLERY = "staff"
PEOPLE = 5
LOOK_EVERY = 50
MOST_GALLERIES = 20


class ServerFailed(Exception):
    """A call had no proper answer, or a later one a wrong answer."""


class ServiceTarget:
    """Sends bytes to the methods of one service; the first byte says to which.

    After some calls, everybody in a gallery that the inputs do not know is still found, a stranger is not, and
    store and index agree.
    """

    def __init__(self, folder: Path, service: str) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        settings = Settings(
            folder / "data",
            listen="127.0.0.1:0",
            image_limits=ImageLimits(max_bytes=2**20, max_pixels=2**18),
            follow_interval_seconds=1,
        )
        self._app = App(settings)
        self._app.start()
        self._channel = grpc.insecure_channel(self._app.address)
        self._methods = SERVICES[service].methods
        self._calls = 0
        self._enrol_the_kept()

    def run(self, content: bytes) -> None:
        if not content:
            return
        method = self._methods[content[0] % len(self._methods)]
        name = f"/{method.containing_service.full_name}/{method.name}"
        try:
            if method.client_streaming:
                stream: Any = self._channel.stream_stream(name)
                list(stream(iter([content[1:]]), timeout=CALL_SECONDS))
            else:
                self._call(name, content[1:])
        except grpc.RpcError as error:
            code = error.code()
            if code not in PROPER:
                raise ServerFailed(f"{method.name} is answered {code.name}") from None
        self._calls += 1
        if self._calls % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Whether the answers about the kept gallery are right, and every gallery is consistent."""
        for number in range(PEOPLE + 1):
            found = self._found(number)
            expected = [f"person-{number}"] if number < PEOPLE else []
            if found != expected:
                raise ServerFailed(f"face {number} is taken for {found}, and is {expected}")
        for gallery in self._app._galleries.opened:
            report = check_gallery(gallery)
            if not report.is_consistent:
                raise ServerFailed(f"store and index of {gallery.record.name} differ: {report.counts}")
        self._clear()

    def stop(self) -> None:
        self._channel.close()
        self._app.stop()

    def _call(self, name: str, message: bytes) -> bytes:
        call: Any = self._channel.unary_unary(name)
        return bytes(call(message, timeout=CALL_SECONDS))

    def _enrol_the_kept(self) -> None:
        embedder = self._app._galleries.pipeline.embedder.manifest
        self._vectors = VectorMaker(dimension=embedder.dimension, model_digest=embedder.sha256)
        for name in (KEPT, OPEN_GALLERY):
            self._create(name)
        for number in range(PEOPLE):
            item = enrolment_pb2.EnrolItem(vector=self._vectors.vector(number))
            identity = enrolment_pb2.Identity(id=f"person-{number}")
            enrolment = enrolment_pb2.EnrolRequest(gallery=KEPT, identity=identity, items=[item])
            self._call("/facedex.v1.EnrolmentService/Enrol", enrolment.SerializeToString())

    def _create(self, name: str) -> None:
        request = gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=name))
        self._call("/facedex.v1.GalleryService/CreateGallery", request.SerializeToString())

    def _found(self, number: int) -> list[str]:
        request = identification_pb2.IdentifyRequest(gallery=KEPT, vector=self._vectors.vector(number), limit=3)
        answer = self._call("/facedex.v1.IdentificationService/Identify", request.SerializeToString())
        (face,) = identification_pb2.IdentifyResponse.FromString(answer).faces
        return [each.identity_id for each in face.candidates]

    def _clear(self) -> None:
        # Inputs that create galleries would slow down those after them.
        galleries = self._app._galleries
        names = [name for name in galleries.store.revisions() if name != KEPT]
        for name in names[MOST_GALLERIES:]:
            galleries.delete(name)
        if OPEN_GALLERY not in names[:MOST_GALLERIES]:
            self._create(OPEN_GALLERY)
