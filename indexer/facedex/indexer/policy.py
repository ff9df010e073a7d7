"""What a gallery accepts and how it decides."""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from facedex.indexer.errors import InvalidArgument

# An expiry has to stay within the calendar.
MAX_RETENTION_SECONDS = 100 * 365.25 * 86_400


class SeveralFaces(enum.Enum):
    """What to do with an enrolment photograph that shows several faces."""

    REFUSE = "refuse"
    LARGEST = "largest"


class GuardAction(enum.Enum):
    """What to do when a guard finds something suspicious."""

    REFUSE = "refuse"
    WARN = "warn"
    ALLOW = "allow"  # without looking


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """The least quality that is enrolled. Defaults accept at least 99 % of ordinary portraits (docs/decisions/0007)."""

    min_detector_score: float = 0.6
    min_size_px: float = 32.0
    min_sharpness: float = 8.0
    min_brightness: float = 30.0
    max_brightness: float = 230.0
    max_yaw_degrees: float = 60.0
    max_pitch_degrees: float = 25.0
    max_roll_degrees: float = 45.0

    def __post_init__(self) -> None:
        _require(0 <= self.min_detector_score <= 1, "min_detector_score", "must lie between 0 and 1")
        _require(0 <= self.min_size_px < math.inf, "min_size_px", "must be 0 or more pixels")
        _require(0 <= self.min_sharpness < math.inf, "min_sharpness", "must be 0 or more")
        _require(0 <= self.min_brightness <= self.max_brightness <= 255, "min_brightness", "0 ≤ min ≤ max ≤ 255")
        for name in ("max_yaw_degrees", "max_pitch_degrees", "max_roll_degrees"):
            _require(0 <= getattr(self, name) <= 180, name, "must lie between 0 and 180 degrees")


@dataclass(frozen=True, slots=True)
class EnrolmentPolicy:
    """What may be enrolled in a gallery."""

    several_faces: SeveralFaces = SeveralFaces.REFUSE
    duplicate_action: GuardAction = GuardAction.WARN
    mislabel_action: GuardAction = GuardAction.WARN
    quality_limits: QualityLimits = field(default_factory=QualityLimits)


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """How scores become decisions: by a fixed `cosine`, or by the `target_fpir` that the gallery's certificate promises.

    Both None take the default of the model's manifest.
    """

    cosine: float | None = None
    review_cosine: float | None = None
    runner_up_margin: float = 0.0
    target_fpir: float | None = None

    def __post_init__(self) -> None:
        for name in ("cosine", "review_cosine"):
            value: float | None = getattr(self, name)
            _require(value is None or -1 <= value <= 1, name, "a cosine lies between -1 and 1")
        target = self.target_fpir
        _require(target is None or 0 < target < 1, "target_fpir", "is a share between 0 and 1, such as 0.01")
        _require(target is None or self.cosine is None, "target_fpir", "give a cosine or a target, not both")
        _require(0 <= self.runner_up_margin <= 2, "runner_up_margin", "must lie between 0 and 2")
        if self.cosine is not None and self.review_cosine is not None:
            _require(self.review_cosine <= self.cosine, "review_cosine", "must not be above the threshold")


@dataclass(frozen=True, slots=True)
class GalleryPolicy:
    """Everything about a gallery that its owner may change."""

    decision: DecisionPolicy = field(default_factory=DecisionPolicy)
    enrolment: EnrolmentPolicy = field(default_factory=EnrolmentPolicy)
    retention_seconds: float | None = None
    keep_crops: bool = False

    def __post_init__(self) -> None:
        seconds = self.retention_seconds
        _require(
            seconds is None or 0 < seconds <= MAX_RETENTION_SECONDS,
            "retention",
            "must be above 0 seconds, up to 100 years",
        )


def policy_to_json(policy: GalleryPolicy) -> dict[str, Any]:
    """As it is kept in the store."""
    document = asdict(policy)
    enrolment = document["enrolment"]
    for name in ("several_faces", "duplicate_action", "mislabel_action"):
        enrolment[name] = enrolment[name].value
    return document


def policy_from_json(document: dict[str, Any]) -> GalleryPolicy:
    """The inverse of `policy_to_json`."""
    enrolment = document["enrolment"]
    return GalleryPolicy(
        decision=DecisionPolicy(**document["decision"]),
        enrolment=EnrolmentPolicy(
            several_faces=SeveralFaces(enrolment["several_faces"]),
            duplicate_action=GuardAction(enrolment["duplicate_action"]),
            mislabel_action=GuardAction(enrolment["mislabel_action"]),
            quality_limits=QualityLimits(**enrolment["quality_limits"]),
        ),
        retention_seconds=document["retention_seconds"],
        keep_crops=document["keep_crops"],
    )


def _require(holds: bool, name: str, problem: str) -> None:  # noqa: FBT001  (a condition is what it is)
    if not holds:
        raise InvalidArgument(name, problem)
