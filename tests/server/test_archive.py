"""A gallery moves from one running server to another, and whoever was erased in between does not come along."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import StartServer
from tests.server.faces import enrol_request, identify_request, photograph
from tests.server.running_server import COMMANDS, RunningServer, Wire
from tests.waiting import wait_until

from facedex.v1 import enrolment_pb2, gallery_pb2, identification_pb2

ADA = "ada-4711-lovelace"
PEOPLE = range(1, 7)


def facedex_index(server: RunningServer, *arguments: str | Path) -> Any:
    """Beside the running server, on its data."""
    place: list[str | Path] = ["--data", server.data, *server._options]
    command: list[str | Path] = [COMMANDS / "facedex-index", *place, *arguments, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def name_of(person: int) -> str:
    return ADA if person == 1 else f"person-{person}"


def enrol_everybody(wire: Wire) -> None:
    gallery = gallery_pb2.Gallery(name="staff", keep_crops=True)
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery))
    for person in PEOPLE:
        wire.enrolment.Enrol(enrol_request("staff", name_of(person), photograph(person), photograph(person, 2)))


def answer(wire: Wire, person: int) -> list[Any]:
    """Who a third photograph shows: decision, threshold, and candidates with exact scores; not the numbers of templates."""
    response: identification_pb2.IdentifyResponse = wire.identification.Identify(
        identify_request("staff", photograph(person, 3))
    )
    return [(face.decision, [(each.identity_id, each.score) for each in face.candidates]) for face in response.faces]


@pytest.fixture
def servers(
    start_server: StartServer, database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> list[RunningServer]:
    """One that will be left, and an empty one, over databases of one kind."""
    if database_url.startswith("sqlite"):
        return [start_server(data=tmp_path / name) for name in ("old", "new")]
    urls = [database_url, request.getfixturevalue("postgresql")()]
    return [
        start_server("--database", url, data=tmp_path / name) for url, name in zip(urls, ("old", "new"), strict=True)
    ]


@pytest.mark.timeout(240)
def test_who_was_erased_after_the_export_is_not_in_the_new_server_and_all_others_answer_the_same(
    servers: list[RunningServer], tmp_path: Path
) -> None:
    old, new = servers
    archive, erased = tmp_path / "staff.zip", tmp_path / "erased.zip"
    with Wire(old.address) as before, Wire(new.address) as after:
        enrol_everybody(before)
        assert facedex_index(old, "export", "staff", archive)["identities"] == len(PEOPLE)
        before.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery="staff", identity_id=ADA))
        assert facedex_index(old, "export-erasures", erased)["erasures"] == 1
        outcome = facedex_index(new, "import", archive, "--erasures", erased)
        assert (outcome["new"], outcome["erased"]) == (len(PEOPLE) - 1, 1)
        wait_until(lambda: answer(after, 2) == answer(before, 2))
        assert [answer(after, person) for person in PEOPLE] == [answer(before, person) for person in PEOPLE]
        assert not any(ADA in str(answer(after, person)) for person in PEOPLE)
        # It is a gallery like any other: somebody new is enrolled, by photograph.
        after.enrolment.Enrol(enrol_request("staff", "late", photograph(9)))
        assert "late" in str(answer(after, 9))
