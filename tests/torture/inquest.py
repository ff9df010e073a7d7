"""After a restart: is everybody there who was acknowledged, and nobody whose erasure was?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import grpc
from tests.server.running_server import CALL_SECONDS, Wire
from tests.torture.ledger import GONE, Fault, Person, Problem, State, problems_of
from tests.torture.load import Caller

from facedex.v1 import consistency_pb2, enrolment_pb2

OLD_PEOPLE = 5
OLD_FACES = 3
QUICKLY_EXAMINED = 120
"""Identities; the examination of more is left to the checks of everybody."""
BYSTANDER = "crowd"
"""Identities whose id begins so belong to no caller."""


class Depth(Enum):
    """How much is searched; everybody is always listed."""

    TOUCHED = "touched"
    """Who was changed since the last check, and a few others."""
    EVERYBODY = "everybody"
    """Every face that was ever sent."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An identity as the server lists it."""

    display_name: str
    templates: frozenset[int]


class Inquest:
    """What a server says after a restart, held against what it acknowledged."""

    def __init__(self, wire: Wire, gallery: str, callers: list[Caller], *, chance: random.Random) -> None:
        self._wire = wire
        self._gallery = gallery
        self._callers = callers
        self._random = chance

    def problems(self, depth: Depth) -> list[Problem]:
        """Each broken promise. Afterwards the callers know what became of what was not answered."""
        listed = self._listed()
        found = [*self._strangers(listed), *self._index_differs(listed)]
        for caller in self._callers:
            found += self._problems_of(caller, listed, depth)
        return found

    def _problems_of(self, caller: Caller, listed: dict[str, Listed], depth: Depth) -> list[Problem]:
        found = list(caller.problems)
        searched = self._chosen(caller, depth)
        for person in caller.ledger.people.values():
            there = listed.get(person.id)
            if person.id in searched:
                found += self._searched(caller, person, there, depth)
            else:
                found += _unsearched(person, there)
        caller.ask_again(self._wire)
        caller.problems.clear()
        caller.touched.clear()
        return found

    def _chosen(self, caller: Caller, depth: Depth) -> set[str]:
        people = list(caller.ledger.people)
        if depth is Depth.EVERYBODY:
            return set(people)
        return {*caller.touched, *self._random.sample(people, min(OLD_PEOPLE, len(people)))}

    def _searched(self, caller: Caller, person: Person, there: Listed | None, depth: Depth) -> Iterator[Problem]:
        found = caller.find(self._wire, self._faces_of(person, depth))
        own = {face: template for face, (identity, template) in found.items() if identity == person.id}
        state = GONE if there is None and not own else State(there.display_name if there else "", frozenset(own))
        yield from problems_of(person, state)
        for face in found.keys() - own.keys():
            yield Problem(Fault.HALF, f"face {face} of {person.id} is found under {found[face][0]}")
        if frozenset(own.values()) != (there.templates if there else frozenset()):
            yield Problem(Fault.HALF, f"{person.id} has templates {there}, and a search finds {own}")
        if self._got(person.id) != there:
            yield Problem(Fault.HALF, f"{person.id} is listed otherwise than it is got")
        for face, template in own.items():
            caller.note_template(face, template)
        person.settle(state)
        person.recent = set(state.faces)

    def _faces_of(self, person: Person, depth: Depth) -> list[int]:
        if depth is Depth.EVERYBODY:
            return sorted(person.ever)
        recent = person.recent.union(*(each.faces for each in person.possible))
        old = sorted(person.ever - recent)
        return [*sorted(recent), *self._random.sample(old, min(OLD_FACES, len(old)))]

    def _strangers(self, listed: dict[str, Listed]) -> Iterator[Problem]:
        known = {each for caller in self._callers for each in caller.ledger.people}
        for each in listed.keys() - known:
            if not each.startswith(BYSTANDER):
                yield Problem(Fault.HALF, f"{each} was never sent")

    def _index_differs(self, listed: dict[str, Listed]) -> Iterator[Problem]:
        (index,) = (each for each in self._wire.info().indexes if each.gallery == self._gallery)
        stored = sum(len(each.templates) for each in listed.values())
        if index.template_count != stored:
            yield Problem(Fault.HALF, f"{stored} templates in the store, {index.template_count} in the index")

    def examination(self, depth: Depth) -> Iterator[Problem]:
        """What the server's own examination finds: rows, log, index and their digests."""
        if len(self._listed()) > QUICKLY_EXAMINED and depth is not Depth.EVERYBODY:
            return
        request = consistency_pb2.CheckConsistencyRequest(gallery=self._gallery)
        for each in self._wire.operations.CheckConsistency(request, timeout=CALL_SECONDS).counts:
            yield Problem(Fault.HALF, f"examination: {each.count} {each.fault}")

    def _listed(self) -> dict[str, Listed]:
        found: dict[str, Listed] = {}
        token = ""
        while True:
            request = enrolment_pb2.ListIdentitiesRequest(gallery=self._gallery, page_size=1000, page_token=token)
            page = self._wire.enrolment.ListIdentities(request, timeout=CALL_SECONDS)
            found |= {each.id: _listed(each) for each in page.identities}
            token = page.next_page_token
            if not token:
                return found

    def _got(self, person_id: str) -> Listed | None:
        request = enrolment_pb2.GetIdentityRequest(gallery=self._gallery, identity_id=person_id)
        try:
            return _listed(self._wire.enrolment.GetIdentity(request, timeout=CALL_SECONDS).identity)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise


def _listed(identity: enrolment_pb2.Identity) -> Listed:
    return Listed(identity.display_name, frozenset(each.id for each in identity.templates))


def _unsearched(person: Person, there: Listed | None) -> Iterator[Problem]:
    """Whoever was not changed is listed as before."""
    if there is None and person.settled != GONE:
        yield Problem(Fault.LOST, f"{person.id} is lost")
    if there is not None and person.settled == GONE:
        yield Problem(Fault.RESURRECTED, f"{person.id} is back")
    if there is not None and person.settled != GONE:
        now = (there.display_name, len(there.templates))
        if now != (person.settled.display_name, len(person.settled.faces)):
            yield Problem(Fault.LOST, f"{person.id} is {there}, and was {person.settled}")
