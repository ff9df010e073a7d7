"""How well models identify the people of a folder: the open-set protocol, with failures to acquire as misses.

The first photograph of each person with several is enrolled, the others are mated probes; persons with one photograph are
strangers, whose searches are non-mated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from facedex.indexer.calibration.metrics import threshold_at_fpir
from facedex.indexer.calibration.scores import MatedSearches, NonMatedSearches, searches_of
from facedex.indexer.calibration.uncertainty import IndependentSearches, RateInterval, clustered_interval
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.jobs.folder import Photograph

RANKS: Final = (1, 5, 10)
FPIR_TARGETS: Final = (0.01, 0.001)


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Who plays which part; no photograph is in two."""

    enrolled: tuple[Photograph, ...]
    mated_probes: tuple[Photograph, ...]
    strangers: tuple[Photograph, ...]

    @staticmethod
    def of(photographs: Iterable[Photograph]) -> OpenSet:
        """The parts of a folder's photographs, which come in order of identity.

        Raises:
            InvalidArgument: there is one person only, or nobody has two photographs.

        """
        people = [tuple(shown) for _, shown in groupby(photographs, key=lambda each: each.identity_id)]
        several = [shown for shown in people if len(shown) > 1]
        if len(people) < 2:
            raise InvalidArgument("PEOPLE", "holds one person; add folders of other people, or nobody can be mistaken")
        if not several:
            raise InvalidArgument("PEOPLE", "holds one photograph a person; add a second of some, to look for them")
        return OpenSet(
            enrolled=tuple(shown[0] for shown in several),
            mated_probes=tuple(photograph for shown in several for photograph in shown[1:]),
            strangers=tuple(shown[0] for shown in people if len(shown) == 1),
        )


@dataclass(frozen=True, slots=True)
class HitRate:
    """Share of mated probes whose mate is within the first `rank` candidates, whatever its score."""

    rank: int
    rate: RateInterval


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """FPIR, and FNIR within rank 1, at one threshold (a cosine), each with its 95 % interval.

    `target_fpir` is what the threshold was set for; None for a threshold that was given. `is_measured` is false where the
    strangers are fewer than one false positive of the target would need: the threshold then stands above all of them.
    """

    target_fpir: float | None
    threshold: float
    fpir: RateInterval
    fnir: RateInterval
    is_measured: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one detector and one embedder make of a folder of people. Without strangers there are no error rates.

    `not_enrolled` people have no template, since their first photograph gave no face (failure to enrol).
    """

    parts: OpenSet
    not_enrolled: int
    hit_rates: tuple[HitRate, ...]
    error_rates: tuple[ErrorRates, ...]


def evaluate(parts: OpenSet, faces: Faces, *, default_threshold: float | None) -> Evaluation:
    """Rates of an open set whose photographs were all looked at.

    A person whose first photograph gave no face is not in the gallery, and each search for her a miss.

    Raises:
        InvalidArgument: no enrolled photograph gave a face.

    """
    mated, non_mated = searches_of_parts(parts, faces)
    return Evaluation(
        parts,
        len(parts.enrolled) - len(faces.acquired(parts.enrolled)),
        tuple(_hit_rate(mated, rank=rank) for rank in RANKS),
        _error_rates(mated, non_mated, default_threshold) if len(non_mated) else (),
    )


@dataclass(frozen=True, slots=True)
class Faces:
    """The vectors (dimension,) by photograph, and the photographs that gave none."""

    vectors: dict[Photograph, NDArray[np.float32]]
    not_acquired: tuple[NotAcquired, ...]

    @staticmethod
    def of(acquired: Iterable[AcquiredFace | NotAcquired]) -> Faces:
        """Crops are let go at once: of a large folder they would fill the memory."""
        vectors: dict[Photograph, NDArray[np.float32]] = {}
        failed: list[NotAcquired] = []
        for each in acquired:
            if isinstance(each, AcquiredFace):
                vectors[each.photograph] = each.vector
            else:
                failed.append(each)
        return Faces(vectors, tuple(failed))

    def acquired(self, photographs: Iterable[Photograph]) -> list[Photograph]:
        return [each for each in photographs if each in self.vectors]

    def rows(self, photographs: Sequence[Photograph]) -> NDArray[np.float32]:
        """Vectors (len(photographs), dimension) of photographs with a face."""
        return np.array([self.vectors[each] for each in photographs], np.float32).reshape(
            len(photographs), self._dimension
        )

    @property
    def _dimension(self) -> int:
        return len(next(iter(self.vectors.values())))


def searches_of_parts(parts: OpenSet, faces: Faces) -> tuple[MatedSearches, NonMatedSearches]:
    """All searches of an open set, those that failed for want of a face or of a template among them.

    Raises:
        InvalidArgument: no enrolled photograph gave a face.

    """
    numbers = {each.identity_id: number for number, each in enumerate((*parts.enrolled, *parts.strangers))}

    def numbered(photographs: Iterable[Photograph]) -> NDArray[np.int64]:
        return np.array([numbers[each.identity_id] for each in photographs], np.int64)

    enrolled = faces.acquired(parts.enrolled)
    if not enrolled:
        raise InvalidArgument("PEOPLE", "no photograph to enrol gives a face; look at the pictures, or at the detector")
    in_gallery = {each.identity_id for each in enrolled}
    mated = [each for each in faces.acquired(parts.mated_probes) if each.identity_id in in_gallery]
    strangers = faces.acquired(parts.strangers)
    probes = [*mated, *strangers]
    found = searches_of(faces.rows(enrolled), numbered(enrolled), faces.rows(probes), numbered(probes))
    return (
        found.mated.with_failures(numbered(_without(parts.mated_probes, mated))),
        found.non_mated.with_failures(numbered(_without(parts.strangers, strangers))),
    )


def _without(photographs: Iterable[Photograph], searched: Iterable[Photograph]) -> list[Photograph]:
    done = set(searched)
    return [each for each in photographs if each not in done]


def _hit_rate(mated: MatedSearches, *, rank: int) -> HitRate:
    missed = clustered_interval(mated.mate_ranks > rank, mated.probe_identities)
    return HitRate(rank, RateInterval(1 - missed.upper, 1 - missed.estimate, 1 - missed.lower))


def _error_rates(
    mated: MatedSearches, non_mated: NonMatedSearches, default_threshold: float | None
) -> tuple[ErrorRates, ...]:
    independent = IndependentSearches.of(non_mated)

    def rates_at(threshold: float, *, target: float | None) -> ErrorRates:
        missed = (mated.mate_scores < threshold) | (mated.mate_ranks > 1)
        return ErrorRates(
            target_fpir=target,
            threshold=threshold,
            fpir=independent.interval(threshold),
            fnir=clustered_interval(missed, mated.probe_identities),
            is_measured=target is None or target * len(non_mated) >= 1,
        )

    targeted = [rates_at(threshold_at_fpir(non_mated, target=target), target=target) for target in FPIR_TARGETS]
    given = [] if default_threshold is None else [rates_at(default_threshold, target=None)]
    return (*targeted, *given)
