"""What is enrolled, and what becomes of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facedex.indexer.identification import ProbeQuality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.policy import GuardAction, QualityLimits, SeveralFaces
    from facedex.indexer.store.records import IdentityDetails
    from facedex.indexer.vision.face import Face, Quality


class EnrolOutcome(enum.Enum):
    """What became of one item."""

    ENROLLED = "enrolled"
    ALREADY_ENROLLED = "already_enrolled"
    REFUSED = "refused"


class EnrolReason(enum.Enum):
    """Why an item is refused, or what was noticed about it."""

    IMAGE_UNREADABLE = "image_unreadable"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    LOW_DETECTOR_SCORE = "low_detector_score"
    TOO_SMALL = "too_small"
    TOO_BLURRED = "too_blurred"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    TURNED_TOO_FAR = "turned_too_far"
    DUPLICATE_PERSON = "duplicate_person"
    MISLABELLED = "mislabelled"
    VECTOR_INVALID = "vector_invalid"
    WRONG_MODEL = "wrong_model"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason or notice. The guards name the other identity and the cosine to it."""

    reason: EnrolReason
    message: str
    other_identity_id: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class EnrolResult:
    """What became of one item. `template_id` is 0 where it was refused; `faces` are largest first."""

    outcome: EnrolOutcome
    template_id: int = 0
    refusals: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    faces: tuple[Face, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorItem:
    """A vector to enrol, (dimension,), with the digest of the model that made it."""

    vector: NDArray[np.float32]
    model_digest: str


# A photograph's bytes, or a vector.
EnrolItem = bytes | VectorItem


@dataclass(frozen=True, slots=True)
class Enrol:
    """A request to enrol items of one identity. What is None takes the gallery's policy."""

    details: IdentityDetails
    items: tuple[EnrolItem, ...]
    request_id: str = ""
    several_faces: SeveralFaces | None = None
    duplicate_action: GuardAction | None = None
    mislabel_action: GuardAction | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One result for each item, in order, and the revision that made the last one searchable."""

    identity_id: str
    results: tuple[EnrolResult, ...] = field(default=())
    revision: int = 0


def probe_quality(quality: Quality, limits: QualityLimits) -> ProbeQuality:
    """Whether a probe would have been enrolled."""
    return ProbeQuality.POOR if quality_findings(quality, limits) else ProbeQuality.SUFFICIENT


def quality_findings(quality: Quality, limits: QualityLimits) -> tuple[Finding, ...]:
    """Each limit that a face breaks, with the figures."""

    def broken(is_broken: bool, reason: EnrolReason, message: str) -> tuple[Finding, ...]:  # noqa: FBT001
        return (Finding(reason, message),) if is_broken else ()

    return (
        *broken(
            quality.detector_score < limits.min_detector_score,
            EnrolReason.LOW_DETECTOR_SCORE,
            f"the detector's score is {quality.detector_score:.2f}, {limits.min_detector_score:.2f} is the least",
        ),
        *broken(
            quality.size_px < limits.min_size_px,
            EnrolReason.TOO_SMALL,
            f"the face is {quality.size_px:.0f} px wide, {limits.min_size_px:.0f} px is the least: come closer",
        ),
        *broken(
            quality.sharpness < limits.min_sharpness,
            EnrolReason.TOO_BLURRED,
            f"sharpness is {quality.sharpness:.1f}, {limits.min_sharpness:.1f} is the least: hold still and focus",
        ),
        *broken(
            quality.brightness < limits.min_brightness,
            EnrolReason.TOO_DARK,
            f"brightness is {quality.brightness:.0f} of 255, {limits.min_brightness:.0f} is the least: add light",
        ),
        *broken(
            quality.brightness > limits.max_brightness,
            EnrolReason.TOO_BRIGHT,
            f"brightness is {quality.brightness:.0f} of 255, {limits.max_brightness:.0f} is the most: expose less",
        ),
        *broken(_is_turned(quality, limits), EnrolReason.TURNED_TOO_FAR, _turn_message(quality, limits)),
    )


def _is_turned(quality: Quality, limits: QualityLimits) -> bool:
    return (
        abs(quality.yaw_degrees) > limits.max_yaw_degrees
        or abs(quality.pitch_degrees) > limits.max_pitch_degrees
        or abs(quality.roll_degrees) > limits.max_roll_degrees
    )


def _turn_message(quality: Quality, limits: QualityLimits) -> str:
    return (
        f"the head is turned {quality.yaw_degrees:.0f}°, nodded {quality.pitch_degrees:.0f}° and tilted "
        f"{quality.roll_degrees:.0f}°; at most {limits.max_yaw_degrees:.0f}°, {limits.max_pitch_degrees:.0f}° and "
        f"{limits.max_roll_degrees:.0f}° are asked for: look into the camera"
    )
