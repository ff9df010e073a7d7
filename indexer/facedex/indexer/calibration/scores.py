"""Searches and comparisons reduced to what error rates are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.errors import ScoresInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NOBODY = -1
"""The nearest identity of a search that returned nobody at all."""

UNRANKED = int(np.iinfo(np.int64).max)
"""The rank of a mate that no list is long enough to show."""

BLOCK_SCORES = 1 << 23  # 32 MiB of float32: what a block of searches holds at once


@dataclass(frozen=True, slots=True)
class NonMatedSearches:
    """Searches of people who are not in the gallery; row i is one search.

    top_scores: (n,) cosine of the best candidate; −inf where no face was found, since then nobody is returned.
    probe_identities: (n,) who was searched.
    nearest_identities: (n,) whose template scored best; `NOBODY` where the score is −inf.
    gallery_templates: how many templates each search was compared with (a mean, where it differs).
    """

    top_scores: NDArray[np.float64]
    probe_identities: NDArray[np.int64]
    nearest_identities: NDArray[np.int64]
    gallery_templates: int

    def __post_init__(self) -> None:
        _check_scores("top_scores", self.top_scores)
        _check_length("probe_identities", self.probe_identities, self.top_scores)
        _check_length("nearest_identities", self.nearest_identities, self.top_scores)
        if self.gallery_templates < 1:
            raise ScoresInvalid("gallery_templates", f"is {self.gallery_templates}; a gallery holds at least one")
        if (self.probe_identities == self.nearest_identities).any():
            raise ScoresInvalid("nearest_identities", "names the probe's own identity; such a search is mated")

    def __len__(self) -> int:
        return len(self.top_scores)

    def with_failures(self, probe_identities: NDArray[np.int64]) -> NonMatedSearches:
        """These and as many searches more in which no face was found."""
        count = len(probe_identities)
        return NonMatedSearches(
            np.append(self.top_scores, np.full(count, -np.inf)),
            np.append(self.probe_identities, probe_identities),
            np.append(self.nearest_identities, np.full(count, NOBODY)),
            self.gallery_templates,
        )

    def only(self, rows: NDArray[np.bool_]) -> NonMatedSearches:
        """The searches of a mask (n,)."""
        return NonMatedSearches(
            self.top_scores[rows], self.probe_identities[rows], self.nearest_identities[rows], self.gallery_templates
        )

    def mutual(self, *, least_score: float) -> NDArray[np.bool_]:
        """A mask (n,): searches of A that find B, at or above a score, where B finds A; perhaps one person enrolled twice."""
        high = np.flatnonzero(self.top_scores >= least_score)
        pairs = list(zip(self.probe_identities[high].tolist(), self.nearest_identities[high].tolist(), strict=True))
        known = set(pairs)
        mask = np.zeros(len(self), np.bool_)
        mask[high] = [(nearest, probe) in known for probe, nearest in pairs]
        return mask


@dataclass(frozen=True, slots=True)
class MatedSearches:
    """Searches of people who are in the gallery; row i is one search.

    mate_scores: (m,) cosine of the best template of the probe's own identity; −inf where no face was found.
    mate_ranks: (m,) 1 for the best candidate; an identity that scores the same stands before the mate.
        `UNRANKED` where no face was found.
    probe_identities: (m,) who was searched.
    """

    mate_scores: NDArray[np.float64]
    mate_ranks: NDArray[np.int64]
    probe_identities: NDArray[np.int64]

    def __post_init__(self) -> None:
        _check_scores("mate_scores", self.mate_scores)
        _check_length("mate_ranks", self.mate_ranks, self.mate_scores)
        _check_length("probe_identities", self.probe_identities, self.mate_scores)
        if (self.mate_ranks < 1).any():
            raise ScoresInvalid("mate_ranks", "holds a rank below 1; the best candidate has rank 1")

    def __len__(self) -> int:
        return len(self.mate_scores)

    def with_failures(self, probe_identities: NDArray[np.int64]) -> MatedSearches:
        """These and as many searches more in which no face was found."""
        count = len(probe_identities)
        return MatedSearches(
            np.append(self.mate_scores, np.full(count, -np.inf)),
            np.append(self.mate_ranks, np.full(count, UNRANKED)),
            np.append(self.probe_identities, probe_identities),
        )


@dataclass(frozen=True, slots=True)
class PairScores:
    """Comparisons of two photographs (1:1): `mated` (m,) of one person, `non_mated` (n,) of two; −inf for a failure."""

    mated: NDArray[np.float64]
    non_mated: NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_scores("mated", self.mated)
        _check_scores("non_mated", self.non_mated)


@dataclass(frozen=True, slots=True)
class Searches:
    """Both kinds of search against one gallery."""

    non_mated: NonMatedSearches
    mated: MatedSearches


def searches_of(
    gallery_vectors: NDArray[np.float32],
    gallery_identities: NDArray[np.int64],
    probe_vectors: NDArray[np.float32],
    probe_identities: NDArray[np.int64],
) -> Searches:
    """Every probe against the gallery: mated where its identity is enrolled, non-mated where it is not.

    Args:
        gallery_vectors: (N, dimension), unit length.
        gallery_identities: (N,), 0 or more.
        probe_vectors: (n, dimension), unit length; only photographs on which a face was found.
        probe_identities: (n,), 0 or more.

    Raises:
        ScoresInvalid: the gallery is empty, or an array has the wrong length.

    """
    _check_length("probe_identities", probe_identities, probe_vectors)
    gallery = _Gallery.of(gallery_vectors, gallery_identities)
    enrolled = np.isin(probe_identities, gallery_identities)
    met = gallery.met_by(probe_vectors, probe_identities)
    return Searches(
        met.only(~enrolled).non_mated(len(gallery_vectors)),
        met.only(enrolled).mated(),
    )


def searches_of_gallery(vectors: NDArray[np.float32], identities: NDArray[np.int64]) -> Searches:
    """Every template against all others: non-mated without its own identity, mated with its identity's other templates.

    Args:
        vectors: (N, dimension), unit length.
        identities: (N,), 0 or more.

    Raises:
        ScoresInvalid: there are fewer than two identities, or an array has the wrong length.

    """
    gallery = _Gallery.of(vectors, identities)
    if len(gallery.people) < 2:
        raise ScoresInvalid("identities", "names one person; a gallery is searched against itself from two on")
    met = gallery.met_by_itself()
    templates = np.diff(gallery.starts, append=len(vectors))
    compared = len(vectors) - float((templates**2).sum()) / len(vectors)  # without the identity's own, on average
    return Searches(
        met.non_mated(round(compared)),
        met.only(np.repeat(templates, templates) > 1).mated(),
    )


@dataclass(frozen=True, slots=True)
class _Met:
    """What probes (n,) met: their mate's score, the best of everybody else, who that is, and how many beat the mate."""

    probe_identities: NDArray[np.int64]
    mate_scores: NDArray[np.float64]
    rival_scores: NDArray[np.float64]
    rivals: NDArray[np.int64]
    ahead: NDArray[np.int64]

    def only(self, rows: NDArray[np.bool_]) -> _Met:
        return _Met(
            self.probe_identities[rows],
            self.mate_scores[rows],
            self.rival_scores[rows],
            self.rivals[rows],
            self.ahead[rows],
        )

    def mated(self) -> MatedSearches:
        return MatedSearches(self.mate_scores, 1 + self.ahead, self.probe_identities)

    def non_mated(self, gallery_templates: int) -> NonMatedSearches:
        return NonMatedSearches(self.rival_scores, self.probe_identities, self.rivals, gallery_templates)


@dataclass(frozen=True, slots=True)
class _Gallery:
    """Templates in order of identity, so that the best of each identity is one reduction over neighbours."""

    vectors: NDArray[np.float32]
    identities: NDArray[np.int64]
    people: NDArray[np.int64]
    starts: NDArray[np.int64]

    @staticmethod
    def of(vectors: NDArray[np.float32], identities: NDArray[np.int64]) -> _Gallery:
        _check_length("gallery_identities", identities, vectors)
        if not len(vectors):
            raise ScoresInvalid("gallery_vectors", "is empty; enrol somebody first")
        order = np.argsort(identities, kind="stable")
        people, starts = np.unique(identities[order], return_index=True)
        return _Gallery(vectors[order], identities[order], people, starts.astype(np.int64))

    def met_by(self, probes: NDArray[np.float32], identities: NDArray[np.int64]) -> _Met:
        met = _nothing_met(identities)
        for rows in self._blocks(len(probes)):
            self._fill(met, rows, probes[rows] @ self.vectors.T)
        return met

    def met_by_itself(self) -> _Met:
        met = _nothing_met(self.identities)
        for rows in self._blocks(len(self.vectors)):
            scores = self.vectors[rows] @ self.vectors.T
            scores[np.arange(len(scores)), np.arange(rows.start, rows.stop)] = -np.inf
            self._fill(met, rows, scores)
        return met

    def _blocks(self, probes: int) -> Iterator[slice]:
        step = max(1, BLOCK_SCORES // len(self.vectors))
        return (slice(start, min(start + step, probes)) for start in range(0, probes, step))

    def _fill(self, met: _Met, rows: slice, scores: NDArray[np.float32]) -> None:
        best = np.maximum.reduceat(scores, self.starts, axis=1)  # (probes, people)
        probes = np.arange(len(best))
        own = np.searchsorted(self.people, met.probe_identities[rows]).clip(max=len(self.people) - 1)
        enrolled = self.people[own] == met.probe_identities[rows]
        mate = np.where(enrolled, best[probes, own], -np.inf)
        best[probes[enrolled], own[enrolled]] = -np.inf
        nearest = best.argmax(axis=1)
        rival = best[probes, nearest]
        met.mate_scores[rows] = mate.clip(max=1.0)  # a product of rounded unit vectors may pass 1 by a rounding
        met.rival_scores[rows] = rival.clip(max=1.0)
        met.rivals[rows] = np.where(np.isfinite(rival), self.people[nearest], NOBODY)
        met.ahead[rows] = (best >= mate[:, None]).sum(axis=1)


def _nothing_met(probe_identities: NDArray[np.int64]) -> _Met:
    count = len(probe_identities)
    return _Met(
        probe_identities,
        np.full(count, -np.inf),
        np.full(count, -np.inf),
        np.full(count, NOBODY, np.int64),
        np.zeros(count, np.int64),
    )


def _check_scores(field: str, scores: NDArray[np.float64]) -> None:
    if scores.ndim != 1:
        raise ScoresInvalid(field, f"has {scores.ndim} dimensions; give one score for each row")
    if np.isnan(scores).any() or (scores == np.inf).any():
        raise ScoresInvalid(field, "holds NaN or +infinity; a failure to acquire is −infinity")


def _check_length(field: str, values: NDArray[Any], rows: NDArray[Any]) -> None:
    if values.ndim != 1 or len(values) != len(rows):
        raise ScoresInvalid(field, f"has shape {values.shape}; give one value for each of {len(rows)} rows")
