"""Whom each template of a gallery resembles: its own identity, and the nearest others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.errors import ScoresInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

COHORT = 10
"""Identities after the nearest other one; their mean says how much a face resembles people in general."""
LEAST_PEOPLE = 2 * COHORT
BLOCK_SCORES = 1 << 23  # 32 MiB of float32: what a block of searches holds at once


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Templates in order of identity.

    vectors: (N, dimension), unit length. people: (N,) whose, as an index into `names`. names: (P,) identity numbers.
    starts: (P,) first template of each. order: (N,) where each stood before they were put in order.
    """

    vectors: NDArray[np.float32]
    people: Rows
    names: Rows
    starts: Rows
    order: Rows

    @staticmethod
    def of(vectors: NDArray[np.float32], identities: Rows) -> Enrolled:
        """Of vectors (N, dimension) and identities (N,).

        Raises:
            ScoresInvalid: the lengths differ, or there are too few identities to know what chance gives.

        """
        if identities.shape != (len(vectors),):
            raise ScoresInvalid(
                "identities", f"has shape {identities.shape}; give one of each of {len(vectors)} vectors"
            )
        order = np.argsort(identities, kind="stable").astype(np.int64)
        names, starts, people = np.unique(identities[order], return_index=True, return_inverse=True)
        if len(names) < LEAST_PEOPLE:
            raise ScoresInvalid(
                "identities", f"are {len(names)}; what chance alone gives is seen from {LEAST_PEOPLE} identities on"
            )
        return Enrolled(vectors[order], people.astype(np.int64), names, starts.astype(np.int64), order)

    @property
    def counts(self) -> Rows:
        """(P,) templates of each."""
        return np.diff(self.starts, append=len(self.vectors))

    def rows_of(self, person: int) -> Rows:
        end = self.starts[person + 1] if person + 1 < len(self.starts) else len(self.vectors)
        return np.arange(self.starts[person], end)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Cosines (some rows, N) of all templates in turn; that of a template with itself is −∞."""
        step = max(1, BLOCK_SCORES // len(self.vectors))
        for start in range(0, len(self.vectors), step):
            rows = slice(start, min(start + step, len(self.vectors)))
            cosines = self.vectors[rows] @ self.vectors.T
            cosines[np.arange(len(cosines)), np.arange(rows.start, rows.stop)] = -np.inf
            yield rows, cosines


@dataclass(frozen=True, slots=True)
class Neighbours:
    """To each template (N,) the best cosine of its identity's others, −∞ where it is alone, and the nearest other identities.

    rivals, rival_scores: (N, 1 + COHORT), nearest first; an identity scores as its nearest template.
    """

    own: NDArray[np.float64]
    rivals: Rows
    rival_scores: NDArray[np.float64]

    @staticmethod
    def of(enrolled: Enrolled, *, report: Callable[[float], None] = lambda _share: None) -> Neighbours:
        count = len(enrolled.vectors)
        met = Neighbours(
            np.empty(count), np.empty((count, 1 + COHORT), np.int64), np.empty((count, 1 + COHORT), np.float64)
        )
        for rows, cosines in enrolled.blocks():
            met._fill(rows, np.maximum.reduceat(cosines, enrolled.starts, axis=1), enrolled.people[rows])
            report(rows.stop / count)
        return met

    def _fill(self, rows: slice, best: NDArray[np.float32], people: Rows) -> None:
        """From the best cosine (rows, P) of each template to each identity."""
        each = np.arange(len(best))
        self.own[rows] = best[each, people]
        best[each, people] = -np.inf
        nearest = np.argpartition(best, -1 - COHORT, axis=1)[:, -1 - COHORT :]
        order = np.argsort(-np.take_along_axis(best, nearest, axis=1), axis=1)
        self.rivals[rows] = np.take_along_axis(nearest, order, axis=1)
        self.rival_scores[rows] = np.take_along_axis(best, self.rivals[rows], axis=1)

    @property
    def levels(self) -> NDArray[np.float64]:
        """(N,) how much each resembles people in general."""
        return np.asarray(self.rival_scores[:, 1:].mean(axis=1), np.float64)
