"""From scores to a decision."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.policy import DecisionPolicy
    from facedex.indexer.store.records import AttributeFilter, IdentityRecord, ModelRecord

# For a model whose manifest names no threshold: strict, so that a stranger gets no match.
STRICT_COSINE = 0.6


class Decision(enum.Enum):
    """What is concluded about a probe."""

    MATCH = "match"
    REVIEW = "review"
    NO_MATCH = "no_match"


class DecisionReason(enum.Enum):
    """Why it is concluded."""

    ABOVE_THRESHOLD = "above_threshold"
    BELOW_THRESHOLD = "below_threshold"
    REVIEW_BAND = "review_band"
    RUNNER_UP_TOO_CLOSE = "runner_up_too_close"
    NOBODY_TO_COMPARE = "nobody_to_compare"
    POOR_PROBE = "poor_probe"
    NO_CALIBRATED_PROMISE = "no_calibrated_promise"


class SearchMode(enum.Enum):
    """What the candidates are for."""

    IDENTIFICATION = "identification"  # those that the decision rests on
    INVESTIGATION = "investigation"  # the best, whatever their score


class FaceSelection(enum.Enum):
    """Which faces of a photograph are meant."""

    ALL = "all"
    LARGEST = "largest"
    ONLY = "only"  # several faces are an error


@dataclass(frozen=True, slots=True)
class FpirBound:
    """What a certificate says of FPIR at a threshold, for the gallery's present size, with its 95 % interval.

    Not measured is extrapolated: beyond the scores that were seen, or to another size of the gallery.
    """

    certificate: str
    lower: float
    estimate: float
    upper: float
    is_measured: bool


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The threshold in force, where it comes from, and what else the decision needs. Cosines, -1 to 1.

    `broken_promise` says why a target that the policy names is not kept; then nobody is a MATCH.
    """

    threshold: float
    basis: str
    review_cosine: float | None = None
    runner_up_margin: float = 0.0
    target_fpir: float | None = None
    fpir: FpirBound | None = None
    broken_promise: str = ""

    @property
    def lowest_score(self) -> float:
        """The lowest score that bears on the decision."""
        review = self.threshold if self.review_cosine is None else self.review_cosine
        return min(self.threshold, review) - self.runner_up_margin

    @property
    def lowest_shown(self) -> float:
        """The lowest score of a candidate in identification."""
        return self.threshold if self.review_cosine is None else min(self.threshold, self.review_cosine)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An identity that the probe may be; `score` is the cosine to its best template."""

    identity: IdentityRecord
    template_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer for one probe: candidates in descending score, and the decision."""

    decision: Decision
    reason: DecisionReason
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """How to search. `threshold` and `target_fpir` None take the gallery's."""

    limit: int = 5
    threshold: float | None = None
    target_fpir: float | None = None
    filters: tuple[AttributeFilter, ...] = ()
    excluded_identity_ids: frozenset[str] = frozenset()
    mode: SearchMode = SearchMode.IDENTIFICATION


@dataclass(frozen=True, slots=True)
class Identifications:
    """One identification a probe, with what they rest on."""

    faces: tuple[Identification, ...]
    operating_point: OperatingPoint
    revision: int


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer of a 1:1 comparison."""

    decision: Decision
    score: float
    operating_point: OperatingPoint


def operating_point(model: ModelRecord, policy: DecisionPolicy, *, requested: float | None) -> OperatingPoint:
    """The threshold that decides: the request's, else the gallery's policy, else the model's manifest."""
    threshold, basis = _threshold(model, policy, requested=requested)
    review = policy.review_cosine
    return OperatingPoint(
        threshold=threshold,
        basis=basis,
        review_cosine=None if review is None else min(review, threshold),
        runner_up_margin=policy.runner_up_margin,
    )


def _threshold(model: ModelRecord, policy: DecisionPolicy, *, requested: float | None) -> tuple[float, str]:
    if requested is not None:
        return requested, "the request"
    if policy.cosine is not None:
        return policy.cosine, "the gallery's policy"
    if model.default_threshold is not None:
        return model.default_threshold, f"the manifest of model {model.name}: {model.threshold_basis}"
    return STRICT_COSINE, f"a strict guess: model {model.name} names no threshold"


class ProbeQuality(enum.Enum):
    """Whether a probe passes the quality gate that a promise rests on."""

    SUFFICIENT = "sufficient"  # or unknown, of a vector
    POOR = "poor"


def decide(
    scores: Sequence[float], point: OperatingPoint, quality: ProbeQuality = ProbeQuality.SUFFICIENT
) -> tuple[Decision, DecisionReason]:
    """The decision for the scores of different identities in descending order."""
    if not scores:
        return Decision.NO_MATCH, DecisionReason.NOBODY_TO_COMPARE
    best = scores[0]
    if best < point.threshold:
        return _below(best, point)
    if len(scores) > 1 and best - scores[1] < point.runner_up_margin:
        return Decision.REVIEW, DecisionReason.RUNNER_UP_TOO_CLOSE
    return _above(point, quality)


def _above(point: OperatingPoint, quality: ProbeQuality) -> tuple[Decision, DecisionReason]:
    if point.broken_promise:
        return Decision.REVIEW, DecisionReason.NO_CALIBRATED_PROMISE
    # A promise holds for probes that pass the gate it was made with: poor photographs make most false positives.
    if point.target_fpir is not None and quality is ProbeQuality.POOR:
        return Decision.REVIEW, DecisionReason.POOR_PROBE
    return Decision.MATCH, DecisionReason.ABOVE_THRESHOLD


def _below(best: float, point: OperatingPoint) -> tuple[Decision, DecisionReason]:
    if point.review_cosine is not None and best >= point.review_cosine:
        return Decision.REVIEW, DecisionReason.REVIEW_BAND
    return Decision.NO_MATCH, DecisionReason.BELOW_THRESHOLD
