"""A real server whose vectors lie in Milvus, here in its small edition: a file that one process has at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, identify_request
from tests.server.running_server import Wire

from facedex.v1 import consistency_pb2, enrolment_pb2, gallery_pb2, operations_pb2

GALLERY = "staff"
PEOPLE = 40


def found(wire: Wire, number: int) -> str:
    vector = vectors_of(wire).vector(number, away=0.3)
    faces = wire.identification.Identify(identify_request(GALLERY, vector)).faces
    return faces[0].candidates[0].identity_id if faces[0].candidates else ""


@pytest.mark.timeout(240)
def test_people_are_found_and_gone_also_after_a_kill(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--milvus", str(tmp_path / "milvus.db"))
    with Wire(server.address) as wire:
        vectors = vectors_of(wire)
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY)))
        requests = (enrol_request(GALLERY, f"person-{n}", vectors.vector(n)) for n in range(PEOPLE))
        assert sum(
            1 for _ in wire.enrolment.EnrolStream(enrolment_pb2.EnrolStreamRequest(enrol=each) for each in requests)
        )
        wire.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery=GALLERY, identity_id="person-3"))
        assert [found(wire, n) for n in (2, 3, 4)] == ["person-2", "", "person-4"]
    server.kill()
    server.start()
    with Wire(server.address) as wire:
        assert [found(wire, n) for n in (2, 3, 4)] == ["person-2", "", "person-4"]
        (told,) = wire.operations.GetServerInfo(operations_pb2.GetServerInfoRequest()).indexes
        assert told.template_count == PEOPLE - 1
        assert "vector engine" in told.reason
        checked = wire.operations.CheckConsistency(consistency_pb2.CheckConsistencyRequest(gallery=GALLERY))
        assert (checked.template_count, list(checked.findings)) == (PEOPLE - 1, [])
