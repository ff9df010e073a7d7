"""Looks for people who are enrolled under another identity, before their template is added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facedex.indexer.enrolment import EnrolReason, Finding
from facedex.indexer.policy import GuardAction
from facedex.indexer.vectors import cosine

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lookalike:
    """An identity that a template resembles, and the cosine to the nearest of its templates."""

    identity_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Who is about to be enrolled in the same transaction, and is in no index yet."""

    templates: list[tuple[str, NDArray[np.float32]]] = field(default_factory=list[tuple[str, "NDArray[np.float32]"]])

    def add(self, identity_id: str, vectors: Iterable[NDArray[np.float32]]) -> None:
        self.templates.extend((identity_id, vector) for vector in vectors)

    def nearest_other(self, vector: NDArray[np.float32], *, identity_id: str, min_score: float) -> Lookalike | None:
        """The nearest of them other than this identity, if it reaches `min_score`."""
        scores = [Lookalike(each, cosine(other, vector)) for each, other in self.templates if each != identity_id]
        best = max(scores, key=lambda each: each.score, default=None)
        return None if best is None or best.score < min_score else best

    def own_score(self, vector: NDArray[np.float32], *, identity_id: str) -> float | None:
        """The best cosine to those of this identity."""
        return max((cosine(own, vector) for each, own in self.templates if each == identity_id), default=None)


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
