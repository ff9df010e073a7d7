"""Galleries and the rules that each of them keeps."""

from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum


class Unchanged(Enum):
    """What an update leaves as it is. `None` would mean a value: for a retention period, for ever."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class SeveralFaces(StrEnum):
    """What to do with an enrolment photograph that shows several faces."""

    REFUSE = "REFUSE"
    LARGEST = "LARGEST"


class GuardAction(StrEnum):
    """What to do when a person seems to be enrolled under another identity, or a photograph looks mislabelled."""

    REFUSE = "REFUSE"
    WARN = "WARN"
    ALLOW = "ALLOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPolicy:
    """How scores become decisions. A score at or above the threshold is a MATCH.

    The threshold is the `cosine`, -1 to 1, or what keeps the `target_fpir`, the share of strangers' searches that may
    return somebody, by the gallery's certificate; both None take the default of the model's manifest. A best score from
    `review_cosine` up to the threshold is REVIEW. A best score less than `runner_up_margin` above another identity's
    best is REVIEW instead of MATCH.
    """

    cosine: float | None = None
    target_fpir: float | None = None
    review_cosine: float | None = None
    runner_up_margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimits:
    """The least quality that is enrolled, in the units of `Quality`. None takes the server's default."""

    min_detector_score: float | None = None
    min_size_px: float | None = None
    min_sharpness: float | None = None
    min_brightness: float | None = None
    max_brightness: float | None = None
    max_yaw_degrees: float | None = None
    max_pitch_degrees: float | None = None
    max_roll_degrees: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentPolicy:
    """What may be enrolled in a gallery. None takes the server's default."""

    several_faces: SeveralFaces | None = None
    duplicate_action: GuardAction | None = None
    mislabel_action: GuardAction | None = None
    quality_limits: QualityLimits = field(default_factory=QualityLimits)


@dataclass(frozen=True, slots=True)
class Gallery:
    """A named set of identities whose templates were made by one model.

    `retention` None keeps an identity until it is deleted. `revision` is the number of the last change to the gallery.
    """

    name: str
    model_name: str
    model_digest: str
    decision_policy: DecisionPolicy
    enrolment_policy: EnrolmentPolicy
    retention: timedelta | None
    keep_crops: bool
    revision: int
    identity_count: int
    template_count: int
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewGallery:
    """Creates an empty gallery and returns it.

    The name has 1 to 63 characters of a-z, 0-9, '-' and '_', beginning with a letter or digit. With `keep_crops` the
    aligned crops are kept, which a later change of model needs. Raises GalleryExistsError where the name is taken.
    """

    name: str
    _: KW_ONLY
    decision_policy: DecisionPolicy = field(default_factory=DecisionPolicy)
    enrolment_policy: EnrolmentPolicy = field(default_factory=EnrolmentPolicy)
    retention: timedelta | None = None
    keep_crops: bool = False


@dataclass(frozen=True, slots=True)
class GalleryUpdate:
    """Changes the policies of a gallery and returns it as it is now. Name and model never change.

    Raises GalleryNotFoundError; InvalidRequestError where nothing is to be changed.
    """

    name: str
    _: KW_ONLY
    decision_policy: DecisionPolicy | Unchanged = UNCHANGED
    enrolment_policy: EnrolmentPolicy | Unchanged = UNCHANGED
    retention: timedelta | Unchanged | None = UNCHANGED
    keep_crops: bool | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True)
class GalleryErasure:
    """What was erased with a gallery.

    `receipt` is a signed document, one line of JSON, that `verify_receipt` and `Client.check_erasure` take.
    """

    identity_count: int
    receipt: str = ""
