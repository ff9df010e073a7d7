"""Looks for people who are enrolled under another identity, before their template is added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.enrolment import EnrolReason, Finding
from facedex.indexer.policy import GuardAction

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lookalike:
    """An identity that a template resembles, and the cosine to the nearest of its templates."""

    identity_id: str
    score: float


class Newcomers:
    """Who is about to be enrolled in the same transaction, and is in no index yet."""

    def __init__(self, *, most: int, dimension: int) -> None:
        """For at most so many vectors (dimension,)."""
        self._vectors = np.zeros((most, dimension), np.float32)
        self._owners = np.zeros(most, np.int64)
        self._numbers: dict[str, int] = {}
        self._count = 0

    def add(self, identity_id: str, vector: NDArray[np.float32]) -> None:
        self._vectors[self._count] = vector
        self._owners[self._count] = self._numbers.setdefault(identity_id, len(self._numbers))
        self._count += 1

    def nearest_other(self, vector: NDArray[np.float32], *, identity_id: str, min_score: float) -> Lookalike | None:
        """The nearest of them other than this identity, if it reaches `min_score`."""
        scores = np.where(self._is_of(identity_id), -np.inf, self._scores(vector))
        if not len(scores) or scores.max() < min_score:
            return None
        best = int(scores.argmax())
        return Lookalike([*self._numbers][self._owners[best]], float(scores[best]))

    def own_score(self, vector: NDArray[np.float32], *, identity_id: str) -> float | None:
        """The best cosine to those of this identity."""
        scores = self._scores(vector)[self._is_of(identity_id)]
        return float(scores.max()) if len(scores) else None

    def _scores(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._vectors[: self._count] @ vector
        return scores.clip(-1.0, 1.0)

    def _is_of(self, identity_id: str) -> NDArray[np.bool_]:
        return np.equal(self._owners[: self._count], self._numbers.get(identity_id, -1))


def guard_finding(best_other: Lookalike, *, own_score: float | None) -> Finding:
    """What it means that a template to be enrolled reaches the threshold with another identity.

    `own_score` is its best cosine to the identity that it is enrolled for; None: that one has no template yet.
    """
    if own_score is not None and own_score < best_other.score:
        return _mislabelled(best_other)
    return _duplicate(best_other)


def action_for(finding: Finding, *, duplicate: GuardAction, mislabel: GuardAction) -> GuardAction:
    """What the policy says to a finding."""
    return duplicate if finding.reason is EnrolReason.DUPLICATE_PERSON else mislabel


def _duplicate(other: Lookalike) -> Finding:
    return Finding(
        EnrolReason.DUPLICATE_PERSON,
        f"this person seems to be enrolled already under another identity (cosine {other.score:.3f}): "
        "enrol the photograph there, or allow duplicates if the two are different people",
        other.identity_id,
        other.score,
    )


def _mislabelled(other: Lookalike) -> Finding:
    return Finding(
        EnrolReason.MISLABELLED,
        f"this photograph looks more like another identity (cosine {other.score:.3f}) than like its own: "
        "check whom it shows",
        other.identity_id,
        other.score,
    )
