"""A caller who changes and searches a gallery until the server dies, and notes every answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import CALL_SECONDS, Wire
from tests.torture.ledger import GONE, Fault, Ledger, Person, Problem, State

from facedex.v1 import enrolment_pb2, identification_pb2

SAME_FACE = 0.99
"""Half precision keeps a cosine to itself well above this; two made faces are nearly orthogonal."""
MOST_PEOPLE = 30
"""Of one caller, enrolled at a time: a check reads them all."""
MOST_ERASED = 100
"""Of one caller: then those who were erased are enrolled again."""


class Caller:
    """Enrols, changes, erases and searches people of its own, one call at a time."""

    def __init__(self, name: str, gallery: str, vectors: VectorMaker, *, seed: int) -> None:
        self.name = name
        self.ledger = Ledger(first_face=seed * 1_000_000)
        self.touched: set[str] = set()
        """Who was changed since the last check."""
        self.problems: list[Problem] = []
        self.answers = 0
        self._gallery = gallery
        self._vectors = vectors
        self._random = random.Random(seed)
        self._templates: dict[int, int] = {}
        self._unanswered: list[tuple[Person, State, enrolment_pb2.EnrolRequest]] = []

    def call_until_dead(self, wire: Wire, stop: threading.Event, pause_seconds: float) -> None:
        """Calls, with a pause before each, until the server is dead or it is told to stop."""
        try:
            while not stop.wait(pause_seconds):
                self._choose()(wire)
                self.answers += 1
        except grpc.RpcError as error:
            self._note_end(error)

    def _note_end(self, error: Any) -> None:
        # Anything but a server that is gone is an answer that nobody should get.
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            self.problems.append(Problem(Fault.HALF, f"a call was refused: {error.code()} {error.details()}"))

    def _choose(self) -> Callable[[Wire], None]:
        alive = len(self.ledger.alive)
        if alive < 3:
            return self._enrol
        weights = [1 if alive >= MOST_PEOPLE else 6, 2, 2, 4, 1, 3, 2]
        calls = [
            *[self._enrol, self._add_face, self._rename, self._erase, self._erase_face],
            *[self._search_for_somebody, self._search_for_erased],
        ]
        return self._random.choices(calls, weights)[0]

    # Changes

    def _enrol(self, wire: Wire) -> None:
        """Somebody new, or somebody who was erased before, with a new face."""
        erased = self.ledger.erased
        if erased and self._random.random() < len(erased) / MOST_ERASED:
            person = self._random.choice(erased)
        else:
            person = Person(f"{self.name}-{len(self.ledger.people)}")
            self.ledger.people[person.id] = person
        self._enrol_face(wire, person)

    def _add_face(self, wire: Wire) -> None:
        self._enrol_face(wire, self._somebody())

    def _enrol_face(self, wire: Wire, person: Person) -> None:
        face = self.ledger.new_face()
        hoped = State(person.settled.display_name, person.settled.faces | {face})
        request = enrol_request(self._gallery, person.id, self._vectors.vector(face), request_id=f"{self.name}/{face}")
        self._unanswered.append((person, hoped, request))
        with self._hoping(person, hoped):
            answer = wire.enrolment.Enrol(request, timeout=CALL_SECONDS)
            self._templates[face] = answer.results[0].template_id
        self._unanswered.clear()

    def ask_again(self, wire: Wire) -> None:
        """Sends what was not answered a second time, as a client that retries does: it is enrolled once."""
        for person, hoped, request in self._unanswered:
            wire.enrolment.Enrol(request, timeout=CALL_SECONDS)
            person.settle(hoped)
        self._unanswered.clear()

    def _rename(self, wire: Wire) -> None:
        person = self._somebody()
        hoped = State(f"name {self._random.randrange(10**6)}", person.settled.faces)
        identity = enrolment_pb2.Identity(id=person.id, display_name=hoped.display_name)
        request = enrolment_pb2.UpdateIdentityRequest(
            gallery=self._gallery, identity=identity, update_mask=FieldMask(paths=["display_name"])
        )
        with self._hoping(person, hoped):
            wire.enrolment.UpdateIdentity(request, timeout=CALL_SECONDS)

    def _erase(self, wire: Wire) -> None:
        person = self._somebody()
        request = enrolment_pb2.DeleteIdentityRequest(gallery=self._gallery, identity_id=person.id)
        with self._hoping(person, GONE):
            wire.enrolment.DeleteIdentity(request, timeout=CALL_SECONDS)

    def _erase_face(self, wire: Wire) -> None:
        person = self._somebody()
        known = sorted(face for face in person.settled.faces if face in self._templates)
        if len(person.settled.faces) < 2 or not known:
            return
        face = self._random.choice(known)
        hoped = State(person.settled.display_name, person.settled.faces - {face})
        request = enrolment_pb2.DeleteTemplateRequest(gallery=self._gallery, template_id=self._templates[face])
        with self._hoping(person, hoped):
            wire.enrolment.DeleteTemplate(request, timeout=CALL_SECONDS)

    def _somebody(self) -> Person:
        return self._random.choice(self.ledger.alive)

    def _hoping(self, person: Person, hoped: State) -> _Hoping:
        self.touched.add(person.id)
        return _Hoping(person, hoped)

    # Searches

    def _search_for_somebody(self, wire: Wire) -> None:
        person = self._somebody()
        self._search(wire, person, self._random.choice(sorted(person.settled.faces)))

    def _search_for_erased(self, wire: Wire) -> None:
        forgotten = [(each, face) for each in self.ledger.people.values() for face in each.ever - each.settled.faces]
        if forgotten:
            self._search(wire, *self._random.choice(forgotten))

    def _search(self, wire: Wire, person: Person, face: int) -> None:
        """A caller reads its own changes, before any crash."""
        found = self.find(wire, [face]).get(face)
        if found is None and face in person.settled.faces:
            self.problems.append(Problem(Fault.LOST, f"face {face} of {person.id} is not found after its answer"))
        if found is not None and face not in person.settled.faces:
            self.problems.append(Problem(Fault.RESURRECTED, f"face {face} of {person.id} is found after its erasure"))

    def note_template(self, face: int, template_id: int) -> None:
        """What a search said of a face whose enrolment was not answered."""
        self._templates[face] = template_id

    def find(self, wire: Wire, faces: list[int]) -> dict[int, tuple[str, int]]:
        """Face → identity and template, for those that a search finds."""
        probes = (_streamed(identify_request(self._gallery, self._vectors.vector(face))) for face in faces)
        answers = wire.identification.IdentifyStream(probes, timeout=CALL_SECONDS)
        found = {face: _best(answer) for face, answer in zip(faces, answers, strict=True)}
        return {face: best for face, best in found.items() if best is not None}


class _Hoping:
    """A change is hoped for until it is answered, and where it is not, what it was is remembered."""

    def __init__(self, person: Person, hoped: State) -> None:
        self._person = person
        self._hoped = hoped

    def __enter__(self) -> None:
        self._person.hope(self._hoped)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._person.settle(self._hoped)


def _streamed(request: identification_pb2.IdentifyRequest) -> identification_pb2.IdentifyStreamRequest:
    return identification_pb2.IdentifyStreamRequest(identify=request)


def _best(answer: identification_pb2.IdentifyStreamResponse) -> tuple[str, int] | None:
    candidates = [each for face in answer.identified.faces for each in face.candidates if each.score > SAME_FACE]
    return (candidates[0].identity_id, candidates[0].template_id) if candidates else None
