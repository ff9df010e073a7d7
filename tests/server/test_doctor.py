"""`facedex-index doctor` beside a running server, which follows what it mends."""

from __future__ import annotations

import subprocess

from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, identify_request
from tests.server.running_server import COMMANDS, RunningServer, Wire
from tests.waiting import wait_until

from facedex.v1 import gallery_pb2

PEOPLE = 30


def filled(server: RunningServer) -> None:
    """30 people, of whom one is enrolled twice."""
    with Wire(server.address) as wire:
        vectors = vectors_of(wire)
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
        for person in range(PEOPLE):
            wire.enrolment.Enrol(enrol_request("staff", f"person {person}", vectors.vector(person)))
        again = vectors.vector(3, away=0.3)
        wire.enrolment.Enrol(enrol_request("staff", "person 3 again", again))


def who_is_person_3(server: RunningServer) -> dict[str, float]:
    """Candidates and their scores."""
    with Wire(server.address) as wire:
        request = identify_request("staff", vectors_of(wire).vector(3, away=0.3))
        (face,) = wire.identification.Identify(request).faces
        return {each.identity_id: round(each.score, 2) for each in face.candidates}


def test_a_running_server_follows_a_merge_and_knows_it_after_a_crash(start_server: StartServer) -> None:
    """The photograph that was enrolled under the second id then belongs to the first, and nobody's name is logged."""
    server = start_server()
    filled(server)
    assert set(who_is_person_3(server)) == {"person 3", "person 3 again"}
    words = ("--gallery", "staff", "--apply", "duplicate", "--yes")
    command = [str(COMMANDS / "facedex-index"), "--data", str(server.data), "doctor", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)
    assert "merged" in done.stderr
    wait_until(lambda: len(who_is_person_3(server)) == 1)
    kept = who_is_person_3(server)
    assert list(kept.values()) == [1.0]
    server.kill()
    server.start()
    assert who_is_person_3(server) == kept
    assert "person 3" not in server.log()
