"""A caller who enrols until the server is killed, remembers what was acknowledged, and holds the server to it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from sqlalchemy import Connection, create_engine, func, select
from tests.server.faces import VectorMaker, enrol_request, identify_request, photograph
from tests.server.running_server import Wire

from facedex.indexer.store.schema import change, identity, template
from facedex.v1 import enrolment_pb2, gallery_pb2, identification_pb2
from facedex.v1.enrolment_pb2 import ENROL_OUTCOME_ENROLLED, EnrolRequest, EnrolStreamResponse

GALLERY = "staff"
SAMPLE_PHOTOGRAPHS = [(person, take) for take in range(1, 6) for person in range(1, 41)]


@dataclass(slots=True)
class Witness:
    """Sends requests of its own kind over one stream at a time; identity `n` is enrolled with probe `n`."""

    probes: dict[str, EnrolRequest] = field(default_factory=dict)
    """Every request that was ever sent, by identity."""
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Identity → template, as the server said."""

    def enrol_until_killed(self, wire: Wire, requests: Iterator[EnrolRequest]) -> None:
        try:
            for answer in wire.enrolment.EnrolStream(self._noted(requests)):
                self._note_answer(answer)
        except grpc.RpcError:
            return  # the server is gone

    def _noted(self, requests: Iterator[EnrolRequest]) -> Iterator[enrolment_pb2.EnrolStreamRequest]:
        for request in requests:
            self.probes[request.identity.id] = request
            yield enrolment_pb2.EnrolStreamRequest(enrol=request)

    def _note_answer(self, answer: EnrolStreamResponse) -> None:
        results = [each for each in answer.enrolled.results if each.outcome == ENROL_OUTCOME_ENROLLED]
        for result in results:
            self.acknowledged[answer.enrolled.identity_id] = result.template_id


class Interrogation:
    """What the server says after a restart, held against what it acknowledged and what the database holds."""

    def __init__(self, wire: Wire, witness: Witness, *, database_url: str) -> None:
        self._wire = wire
        self._witness = witness
        self._database_url = database_url

    def problems(self) -> list[str]:
        """Each broken promise; none where all are kept."""
        engine = create_engine(self._database_url)
        with engine.connect() as connection:
            templates = _templates(connection)
            found = [
                *self._acknowledged_but_lost(templates),
                *self._committed_in_part(connection, templates),
                *self._told_otherwise(templates),
                *self._not_searchable(templates),
            ]
        engine.dispose()
        return found

    def _acknowledged_but_lost(self, templates: dict[str, int]) -> list[str]:
        acknowledged = self._witness.acknowledged.items()
        return [
            f"{each} was acknowledged and is lost" for each, number in acknowledged if templates.get(each) != number
        ]

    def _committed_in_part(self, connection: Connection, templates: dict[str, int]) -> list[str]:
        people = set(connection.execute(select(identity.c.external_id)).scalars())
        logged = connection.execute(select(func.count()).select_from(change).where(change.c.op == "add")).scalar_one()
        strangers = people - set(self._witness.probes)
        return [
            *(f"{each} is enrolled without a template" for each in people - set(templates)),
            *(f"{each} was never sent" for each in strangers),
            *([] if logged == len(templates) else [f"{len(templates)} templates, but {logged} additions in the log"]),
        ]

    def _told_otherwise(self, templates: dict[str, int]) -> list[str]:
        request = gallery_pb2.GetGalleryRequest(name=GALLERY)
        told = self._wire.galleries.GetGallery(request).gallery
        listed = {each.id for each in self._listed()}
        return [
            *([] if told.identity_count == len(templates) else [f"{told.identity_count} identities are told"]),
            *(f"{each} is listed, or in the database, but not both" for each in listed ^ set(templates)),
        ]

    def _listed(self) -> Iterator[enrolment_pb2.Identity]:
        token = ""
        while True:
            request = enrolment_pb2.ListIdentitiesRequest(gallery=GALLERY, page_size=1000, page_token=token)
            page = self._wire.enrolment.ListIdentities(request)
            yield from page.identities
            token = page.next_page_token
            if not token:
                return

    def _not_searchable(self, templates: dict[str, int]) -> list[str]:
        probes = [(each, number) for each, number in templates.items() if each in self._witness.probes]
        frames = (_search_for(self._witness.probes[each]) for each, _ in probes)
        answers = self._wire.identification.IdentifyStream(frames)
        return [
            f"{each} is enrolled and not found"
            for (each, number), answer in zip(probes, answers, strict=True)
            if number not in _found(answer)
        ]


def _templates(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(identity.c.external_id, template.c.id).join_from(identity, template))
    return {row.external_id: row.id for row in rows}


def _search_for(request: EnrolRequest) -> identification_pb2.IdentifyStreamRequest:
    item = request.items[0]
    probe = item.image if item.WhichOneof("source") == "image" else item.vector
    return identification_pb2.IdentifyStreamRequest(identify=identify_request(GALLERY, probe))


def _found(answer: identification_pb2.IdentifyStreamResponse) -> set[int]:
    return {each.template_id for face in answer.identified.faces[:1] for each in face.candidates[:1]}


def vector_requests(vectors: VectorMaker) -> Iterator[EnrolRequest]:
    """One new identity after the other, without end."""
    return (enrol_request(GALLERY, f"vector {n}", vectors.vector(n), request_id=f"v{n}") for n in itertools.count())


def photograph_requests() -> Iterator[EnrolRequest]:
    """Sample people, each photograph under an identity of its own."""
    return (enrol_request(GALLERY, f"photograph {p} {t}", photograph(p, t)) for p, t in SAMPLE_PHOTOGRAPHS)


def enrol_until(wire: Wire, witness: Witness, streams: list[Iterator[EnrolRequest]], *, seconds: float) -> None:
    """Keeps streams of enrolments running for some time after the first acknowledgement, and returns in their middle."""
    before = len(witness.acknowledged)
    for requests in streams:
        threading.Thread(target=witness.enrol_until_killed, args=(wire, requests), daemon=True).start()
    while len(witness.acknowledged) == before:
        time.sleep(0.005)
    time.sleep(seconds)
