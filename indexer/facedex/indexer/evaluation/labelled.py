"""Calibration from labelled photographs, a folder a person: some people are enrolled, the others are strangers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.scores import Searches, searches_of
from facedex.indexer.enrolment import quality_findings
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired
from facedex.indexer.evaluation.people_lists import Role
from facedex.indexer.evaluation.searched import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.jobs.folder import Photograph
    from facedex.indexer.policy import QualityLimits


@dataclass(frozen=True, slots=True)
class Unusable:
    """A photograph that gave no vector: no picture, no face, or one that the quality gate keeps out."""

    photograph: Photograph
    message: str


@dataclass(frozen=True, slots=True)
class GatedFaces:
    """Vectors (dimension,) by photograph, of those that pass the quality gate; the others are failures to acquire."""

    vectors: dict[Photograph, NDArray[np.float32]]
    failures: tuple[Unusable, ...]

    @staticmethod
    def of(acquired: Iterable[AcquiredFace | NotAcquired], limits: QualityLimits) -> GatedFaces:
        vectors: dict[Photograph, NDArray[np.float32]] = {}
        failures: list[Unusable] = []
        for each in acquired:
            problem = _problem(each, limits)
            if problem or isinstance(each, NotAcquired):
                failures.append(Unusable(each.photograph, problem))
            else:
                vectors[each.photograph] = each.vector
        return GatedFaces(vectors, tuple(failures))

    def rows(self, photographs: Sequence[Photograph]) -> NDArray[np.float32]:
        """Vectors (len(photographs), dimension) of photographs that gave one."""
        dimension = len(next(iter(self.vectors.values()))) if self.vectors else 1
        return np.array([self.vectors[each] for each in photographs], np.float32).reshape(-1, dimension)

    def with_face(self, photographs: Iterable[Photograph]) -> list[Photograph]:
        return [each for each in photographs if each in self.vectors]

    def without_face(self, photographs: Iterable[Photograph]) -> list[Photograph]:
        return [each for each in photographs if each not in self.vectors]

    def digest(self) -> str:
        """SHA-256 over whom the photographs show and what was seen on them, hexadecimal."""
        digest = hashlib.sha256()
        for photograph, vector in self.vectors.items():
            digest.update(photograph.identity_id.encode() + b"\0" + vector.tobytes())
        return digest.hexdigest()


def _problem(each: AcquiredFace | NotAcquired, limits: QualityLimits) -> str:
    if isinstance(each, NotAcquired):
        return each.message
    return "; ".join(finding.message for finding in quality_findings(each.quality, limits))


@dataclass(frozen=True, slots=True)
class Split:
    """Who is enrolled and who is a stranger; each person with her photographs. `left_out` play no part."""

    enrolled: tuple[tuple[Photograph, ...], ...]
    strangers: tuple[tuple[Photograph, ...], ...]
    left_out: int = 0

    def __post_init__(self) -> None:
        if not self.enrolled or not self.strangers:
            raise InvalidArgument("PEOPLE", "needs two people at least: one to enrol, and one who is a stranger")

    @staticmethod
    def at_random(photographs: Iterable[Photograph], *, seed: int) -> Split:
        """Half of the people are enrolled, those with several photographs first, since the others have no mated search.

        A promise reaches the further the more strangers were compared with the more templates; halves make the product
        largest.
        """
        people = _people(photographs)
        order = np.random.default_rng(seed).permutation(len(people)).tolist()
        several_first = sorted(order, key=lambda place: len(people[place]) < 2)
        enrolled = set(several_first[: len(people) // 2])
        return Split(
            tuple(shown for place, shown in enumerate(people) if place in enrolled),
            tuple(shown for place, shown in enumerate(people) if place not in enrolled),
        )

    @staticmethod
    def listed(photographs: Iterable[Photograph], roles: Mapping[str, Role]) -> Split:
        """As a list says; who is on no list is left out.

        Raises:
            InvalidArgument: the list names somebody who has no folder.

        """
        people = {shown[0].identity_id: shown for shown in _people(photographs)}
        missing = sorted(set(roles) - set(people))
        if missing:
            raise InvalidArgument("--split", f"names {missing[0]}, of whom there is no folder with photographs")
        parts = {role: tuple(people[name] for name in sorted(roles) if roles[name] is role) for role in Role}
        return Split(parts[Role.ENROLLED], parts[Role.STRANGER], left_out=len(people) - len(roles))

    @property
    def photographs(self) -> list[Photograph]:
        return [photograph for person in (*self.enrolled, *self.strangers) for photograph in person]


def _people(photographs: Iterable[Photograph]) -> list[tuple[Photograph, ...]]:
    return [tuple(shown) for _, shown in groupby(photographs, key=lambda each: each.identity_id)]


@dataclass(frozen=True, slots=True)
class LabelledSearches:
    """The searches of a split, failures to acquire among them, and how many templates were enrolled."""

    searches: Searches
    labels: Labels
    templates: int

    @staticmethod
    def of(split: Split, faces: GatedFaces) -> LabelledSearches:
        """Of each enrolled person the first photograph that gives a face is her template, later ones are mated probes.

        A mated probe that gave no face, or whose person could not be enrolled, is a miss; a stranger's returns nobody.

        Raises:
            InvalidArgument: nobody could be enrolled.

        """
        templates = [found[0] for shown in split.enrolled if (found := faces.with_face(shown))]
        if not templates:
            raise InvalidArgument("PEOPLE", "no photograph to enrol gives a face that passes the quality gate")
        probes = [probe for shown in split.enrolled for probe in _probes(shown, faces)]
        enrolled = {each.identity_id for each in templates}
        mated = [each for each in faces.with_face(probes) if each.identity_id in enrolled]
        searched = set(mated)
        missed = [each for each in probes if each not in searched]
        strangers = [photograph for shown in split.strangers for photograph in shown]
        return _searched(faces, _Numbers.of(split), _Parts(templates, mated, missed, strangers))


@dataclass(frozen=True, slots=True)
class _Parts:
    templates: list[Photograph]
    mated: list[Photograph]
    missed: list[Photograph]
    strangers: list[Photograph]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A number for each person."""

    by_name: dict[str, int]

    @staticmethod
    def of(split: Split) -> _Numbers:
        return _Numbers(
            {shown[0].identity_id: place for place, shown in enumerate((*split.enrolled, *split.strangers))}
        )

    def of_people(self, photographs: Iterable[Photograph]) -> NDArray[np.int64]:
        return np.array([self.by_name[each.identity_id] for each in photographs], np.int64)


def _probes(shown: tuple[Photograph, ...], faces: GatedFaces) -> tuple[Photograph, ...]:
    """The photographs after the template; where there is none, after the first, which failed to be enrolled."""
    template = next((place for place, each in enumerate(shown) if each in faces.vectors), 0)
    return shown[template + 1 :]


def _searched(faces: GatedFaces, numbers: _Numbers, parts: _Parts) -> LabelledSearches:
    strangers, failed = faces.with_face(parts.strangers), faces.without_face(parts.strangers)
    probes = [*parts.mated, *strangers]
    found = searches_of(
        faces.rows(parts.templates),
        numbers.of_people(parts.templates),
        faces.rows(probes),
        numbers.of_people(probes),
    )
    searches = Searches(
        found.non_mated.with_failures(numbers.of_people(failed)),
        found.mated.with_failures(numbers.of_people(parts.missed)),
    )
    labels = Labels(
        names={number: name for name, number in numbers.by_name.items()},
        non_mated=tuple(each.path for each in (*strangers, *failed)),
        mated=tuple(each.path for each in (*parts.mated, *parts.missed)),
        templates={numbers.by_name[each.identity_id]: each.path for each in parts.templates},
    )
    return LabelledSearches(searches, labels, len(parts.templates))
