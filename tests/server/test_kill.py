"""`kill -9` in the middle of enrolments: what was acknowledged is there, and what is there is whole."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete
from tests.server.conftest import StartServer, vectors_of
from tests.server.running_server import RunningServer, Wire
from tests.server.witness import (
    GALLERY,
    Interrogation,
    Witness,
    enrol_until,
    photograph_requests,
    vector_requests,
)

from facedex.indexer.store.schema import template
from facedex.v1 import gallery_pb2
from facedex.v1.enrolment_pb2 import EnrolRequest

logger = logging.getLogger(__name__)
KILLS = int(os.environ.get("FACEDEX_KILLS", "5"))


def start_with_gallery(start_server: StartServer, database_url: str) -> RunningServer:
    server = start_server("--database", database_url)
    with Wire(server.address) as wire:
        request = gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY))
        wire.galleries.CreateGallery(request)
    return server


def enrol_and_kill(
    server: RunningServer, witness: Witness, streams: list[Iterator[EnrolRequest]], seconds: float
) -> None:
    with Wire(server.address) as wire:
        enrol_until(wire, witness, streams, seconds=seconds)
        server.kill()


@pytest.mark.timeout(60 + 30 * KILLS)
def test_what_was_acknowledged_survives_a_killed_server(start_server: StartServer, database_url: str) -> None:
    server = start_with_gallery(start_server, database_url)
    with Wire(server.address) as wire:
        streams = [vector_requests(vectors_of(wire)), photograph_requests()]
    witness = Witness()
    moments = random.Random(7)
    for number in range(KILLS):
        enrol_and_kill(server, witness, streams, seconds=moments.uniform(0, 0.5))
        server.start()
        with Wire(server.address) as wire:
            problems = Interrogation(wire, witness, database_url=database_url).problems()
        assert not problems, f"after kill {number + 1}"
    logger.info("%d kills, %d acknowledged, none lost", KILLS, len(witness.acknowledged))
    assert len(witness.acknowledged) >= KILLS


def test_the_witness_notices_an_acknowledged_template_that_is_gone(start_server: StartServer, tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'facedex.db'}"
    server = start_with_gallery(start_server, database_url)
    with Wire(server.address) as wire:
        streams = [vector_requests(vectors_of(wire))]
    witness = Witness()
    enrol_and_kill(server, witness, streams, 0.1)
    lost, number = next(iter(witness.acknowledged.items()))
    with create_engine(database_url).begin() as connection:
        connection.execute(delete(template).where(template.c.id == number))
    server.start()
    with Wire(server.address) as wire:
        problems = Interrogation(wire, witness, database_url=database_url).problems()
    assert f"{lost} was acknowledged and is lost" in problems
    assert f"{lost} is enrolled without a template" in problems
