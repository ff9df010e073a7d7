"""What a caller knows of the people it enrolled: what was acknowledged, and what was asked for and not answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class State:
    """What is enrolled of one person."""

    display_name: str
    faces: frozenset[int]
    """Numbers of the vectors that its templates were made of."""


GONE = State("", frozenset())
"""Nothing is enrolled; an identity whose last template was erased has a name."""


@dataclass(slots=True)
class Person:
    """One identity. Its state is `settled`, or `hoped` where a change was sent and not answered."""

    id: str
    settled: State = GONE
    hoped: State | None = None
    ever: set[int] = field(default_factory=set)
    """Every face that was ever sent for it."""
    recent: set[int] = field(default_factory=set)
    """Those that were enrolled at the last check, or sent since."""

    @property
    def possible(self) -> tuple[State, ...]:
        return (self.settled,) if self.hoped is None else (self.settled, self.hoped)

    def hope(self, state: State) -> None:
        self.hoped = state
        self.ever |= state.faces
        self.recent |= state.faces

    def settle(self, state: State) -> None:
        self.settled, self.hoped = state, None


class Fault(Enum):
    """How a promise is broken."""

    LOST = "lost"
    """It was acknowledged, and is not there."""
    RESURRECTED = "resurrected"
    """Its erasure was acknowledged, and it is there."""
    HALF = "half there"
    """A change is there in part, or in the store and not in the index."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken promise."""

    fault: Fault
    text: str


def problems_of(person: Person, found: State) -> Iterator[Problem]:
    """Holds what is there of a person against what was acknowledged."""
    promised = frozenset.intersection(*(each.faces for each in person.possible))
    allowed = frozenset.union(*(each.faces for each in person.possible))
    for face in sorted(promised - found.faces):
        yield Problem(Fault.LOST, f"face {face} of {person.id} is lost")
    for face in sorted(found.faces - allowed):
        yield Problem(Fault.RESURRECTED, f"face {face} of {person.id} is back")
    if promised <= found.faces <= allowed and found not in person.possible:
        yield from _problems_of_name(person, found)


def _problems_of_name(person: Person, found: State) -> Iterator[Problem]:
    if GONE not in person.possible and found.display_name not in {each.display_name for each in person.possible}:
        yield Problem(Fault.LOST, f"{person.id} is called {found.display_name!r}: an update is lost")
    elif person.possible == (GONE,):
        yield Problem(Fault.RESURRECTED, f"{person.id} is back, without a face")
    else:
        yield Problem(Fault.HALF, f"{person.id} is {found}, and was to be one of {person.possible}")


class Ledger:
    """Everybody whom a caller ever enrolled, with a new number for every face."""

    def __init__(self, first_face: int = 1) -> None:
        self.people: dict[str, Person] = {}
        self._next_face = first_face

    def new_face(self) -> int:
        self._next_face += 1
        return self._next_face - 1

    @property
    def alive(self) -> list[Person]:
        return [each for each in self.people.values() if each.settled != GONE]

    @property
    def erased(self) -> list[Person]:
        return [each for each in self.people.values() if each.settled == GONE]
