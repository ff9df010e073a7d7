"""Searches and vectors that another engine made, so that its thresholds can be calibrated too."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.scores import (
    NOBODY,
    UNRANKED,
    MatedSearches,
    NonMatedSearches,
    Searches,
    searches_of,
    searches_of_gallery,
)
from facedex.indexer.evaluation.columns import Columns, read_columns
from facedex.indexer.evaluation.searched import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SCORE_COLUMNS = ("kind", "score", "rank", "probe_identity", "nearest_identity", "gallery_templates")
MATED, NON_MATED = "mated", "non_mated"


class VectorRole(enum.Enum):
    """What a vector of a file is."""

    ENROLLED = "enrolled"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class FileSearches:
    """The searches of a file, and what it says about them.

    digest: SHA-256 of the file, hexadecimal. photographs: searches or vectors. identities: searched or enrolled.
    """

    searches: Searches
    labels: Labels
    digest: str
    identities: int
    photographs: int
    failures: int
    templates_per_identity: float


def read_scores(path: Path) -> FileSearches:
    """Searches, a row each, with the columns `SCORE_COLUMNS`.

    kind is mated or non_mated. score is the cosine of the best candidate of a non-mated search, and of the mate in a mated
    one; empty where no face was found. rank is the mate's, from 1; empty in non-mated rows. nearest_identity is whose
    template scored best; it may be empty in mated rows. gallery_templates is how many templates were searched.

    Raises:
        InvalidArgument: a column is missing, or holds what it cannot.

    """
    columns = read_columns(path)
    columns.require(SCORE_COLUMNS)
    kinds = np.array(columns.texts("kind"))
    unknown = sorted(set(kinds.tolist()) - {MATED, NON_MATED})
    if unknown:
        raise columns.problem(f"column kind holds {unknown[0]!r}; write {MATED} or {NON_MATED}")
    scores = _scores(columns)
    numbers, labels = _numbered(columns.texts("probe_identity"), columns.texts("nearest_identity"))
    probes, nearest = numbers
    _check_named(columns, probes, nearest, strangers_found=(kinds == NON_MATED) & np.isfinite(scores))
    mated = kinds == MATED
    searches = Searches(
        NonMatedSearches(scores[~mated], probes[~mated], _found(nearest, scores)[~mated], _templates(columns)),
        MatedSearches(scores[mated], _ranks(columns, scores, mated), probes[mated]),
    )
    return FileSearches(
        searches,
        labels,
        digest=_digest(path),
        identities=len(np.unique(probes)),
        photographs=len(scores),
        failures=int(np.isneginf(scores).sum()),
        templates_per_identity=1.0,
    )


def read_embeddings(path: Path) -> FileSearches:
    """Vectors of any engine, compared by their cosine: the columns `vectors` (a list a row), `identities` and `role`.

    role is enrolled or probe; a probe of nobody who is enrolled is a non-mated search. Without a column `role` each vector
    is searched among those of everybody else. Vectors need not be of unit length.

    Raises:
        InvalidArgument: a column is missing, or holds what it cannot.

    """
    columns = read_columns(path)
    columns.require(("vectors", "identities"))
    vectors = _unit_vectors(columns)
    ((identities,), labels) = _numbered(columns.texts("identities"))
    enrolled = _enrolled(columns)
    searches = _searches_of_vectors(vectors, identities, enrolled)
    people = len(np.unique(identities[enrolled]))
    return FileSearches(
        searches,
        labels,
        digest=_digest(path),
        identities=len(np.unique(identities)),
        photographs=len(vectors),
        failures=0,
        templates_per_identity=float(enrolled.sum() / people),
    )


def _searches_of_vectors(
    vectors: NDArray[np.float32], identities: NDArray[np.int64], enrolled: NDArray[np.bool_]
) -> Searches:
    if enrolled.all():
        return searches_of_gallery(vectors, identities)
    return searches_of(vectors[enrolled], identities[enrolled], vectors[~enrolled], identities[~enrolled])


def _scores(columns: Columns) -> NDArray[np.float64]:
    scores = columns.numbers("score")
    scores[np.isnan(scores)] = -np.inf
    highest = float(scores.max())
    if highest > 1:
        raise columns.problem(
            f"column score holds {highest:g}; thresholds are stated for similarities up to 1, such as cosines: "
            "divide by the largest score that there can be"
        )
    return scores


def _ranks(columns: Columns, scores: NDArray[np.float64], mated: NDArray[np.bool_]) -> NDArray[np.int64]:
    ranks = columns.numbers("rank")[mated]
    failed = np.isneginf(scores[mated])
    if (np.isnan(ranks) & ~failed).any():
        raise columns.problem("column rank is empty in a mated row; give the place of the mate among the candidates")
    return np.where(failed | np.isnan(ranks), UNRANKED, np.nan_to_num(ranks, nan=1.0).astype(np.int64))


def _templates(columns: Columns) -> int:
    templates = columns.numbers("gallery_templates")
    if np.isnan(templates).any() or (templates < 1).any():
        raise columns.problem("column gallery_templates is empty or below 1 in a row")
    return round(float(templates.mean()))


def _check_named(
    columns: Columns, probes: NDArray[np.int64], nearest: NDArray[np.int64], *, strangers_found: NDArray[np.bool_]
) -> None:
    # Whoever is behind several false positives makes them dependent; without names the intervals would be too narrow.
    if (probes == NOBODY).any():
        raise columns.problem("column probe_identity is empty in a row; any name will do, the same for the same person")
    if (nearest[strangers_found] == NOBODY).any():
        raise columns.problem("column nearest_identity is empty in a non-mated row; name whose template scored best")


def _found(nearest: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.where(np.isneginf(scores), NOBODY, nearest)


def _numbered(*texts: list[str]) -> tuple[list[NDArray[np.int64]], Labels]:
    """The same number for the same name in all lists, `NOBODY` for an empty one."""
    names = sorted({name for each in texts for name in each if name})
    numbers = {name: number for number, name in enumerate(names)}

    def of(each: Iterable[str]) -> NDArray[np.int64]:
        return np.array([numbers.get(name, NOBODY) for name in each], np.int64)

    return [of(each) for each in texts], Labels(names=dict(enumerate(names)))


def _unit_vectors(columns: Columns) -> NDArray[np.float32]:
    vectors = columns.arrays["vectors"]
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number):
        raise columns.problem("column vectors holds no rows of numbers of one length")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise columns.problem("column vectors holds a row of zeros, NaN or infinity; leave failures out")
    return np.asarray(vectors / lengths, np.float32)


def _enrolled(columns: Columns) -> NDArray[np.bool_]:
    if "role" not in columns.arrays:
        return np.ones(len(columns.arrays["vectors"]), np.bool_)
    roles = columns.texts("role")
    known = [role.value for role in VectorRole]
    unknown = sorted(set(roles) - set(known))
    if unknown:
        raise columns.problem(f"column role holds {unknown[0]!r}; write {' or '.join(known)}")
    enrolled = np.array([role == VectorRole.ENROLLED.value for role in roles])
    if not enrolled.any():
        raise columns.problem("column role enrols nobody")
    return enrolled


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
