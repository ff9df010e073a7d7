"""Looks for people who are enrolled under another identity, before their template is added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.enrolment import EnrolReason, Finding
from facedex.indexer.policy import GuardAction

if TYPE_CHECKING:
    from facedex.indexer.identification import Candidate


def guard_finding(best_other: Candidate, *, own_score: float | None) -> Finding:
    """What it means that a template to be enrolled reaches the threshold with another identity.

    `own_score` is its best cosine to the identity that it is enrolled for; None: that one has no template yet.
    """
    if own_score is not None and own_score < best_other.score:
        return _mislabelled(best_other)
    return _duplicate(best_other)


def action_for(finding: Finding, *, duplicate: GuardAction, mislabel: GuardAction) -> GuardAction:
    """What the policy says to a finding."""
    return duplicate if finding.reason is EnrolReason.DUPLICATE_PERSON else mislabel


def _duplicate(other: Candidate) -> Finding:
    return Finding(
        EnrolReason.DUPLICATE_PERSON,
        f"this person seems to be enrolled already under another identity (cosine {other.score:.3f}): "
        "enrol the photograph there, or allow duplicates if the two are different people",
        other.identity.external_id,
        other.score,
    )


def _mislabelled(other: Candidate) -> Finding:
    return Finding(
        EnrolReason.MISLABELLED,
        f"this photograph looks more like another identity (cosine {other.score:.3f}) than like its own: "
        "check whom it shows",
        other.identity.external_id,
        other.score,
    )
