"""The people of a gallery: enrolling, reading and changing them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from enum import StrEnum

from facedex.client.faces import Face, Quality, Vector
from facedex.client.galleries import UNCHANGED, GuardAction, SeveralFaces, Unchanged


@dataclass(frozen=True, slots=True)
class Template:
    """One enrolled face of an identity.

    The vector itself stays in the server. `quality` is None where a vector was enrolled.
    """

    id: int
    quality: Quality | None
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class Identity:
    """A person enrolled in a gallery, by the caller's own id, which is unique in it.

    `expire_time` None: never expires. Nobody may erase whoever has a `hold_reason`.
    """

    id: str
    display_name: str
    attributes: Mapping[str, str]
    consent_reference: str
    expire_time: datetime | None
    templates: tuple[Template, ...]
    create_time: datetime | None
    purpose: str = ""
    hold_reason: str = ""


class EnrolOutcome(StrEnum):
    """What became of one photograph or vector."""

    ENROLLED = "ENROLLED"
    ALREADY_ENROLLED = "ALREADY_ENROLLED"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


class EnrolReason(StrEnum):
    """Why a photograph or vector is refused, or what was noticed about it."""

    IMAGE_UNREADABLE = "IMAGE_UNREADABLE"
    NO_FACE = "NO_FACE"
    SEVERAL_FACES = "SEVERAL_FACES"
    LOW_DETECTOR_SCORE = "LOW_DETECTOR_SCORE"
    TOO_SMALL = "TOO_SMALL"
    TOO_BLURRED = "TOO_BLURRED"
    TOO_DARK = "TOO_DARK"
    TOO_BRIGHT = "TOO_BRIGHT"
    TURNED_TOO_FAR = "TURNED_TOO_FAR"
    DUPLICATE_PERSON = "DUPLICATE_PERSON"
    MISLABELLED = "MISLABELLED"
    VECTOR_INVALID = "VECTOR_INVALID"
    WRONG_MODEL = "WRONG_MODEL"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


@dataclass(frozen=True, slots=True)
class EnrolFinding:
    """One reason or notice about a photograph.

    `other_identity` and `score`, its cosine, tell whom a guard took it for.
    """

    reason: EnrolReason
    message: str
    other_identity: str
    score: float


@dataclass(frozen=True, slots=True)
class EnrolResult:
    """What became of one photograph or vector.

    `template_id` is 0 where it was refused; `faces` are those found, largest first.
    """

    outcome: EnrolOutcome
    template_id: int
    refusals: tuple[EnrolFinding, ...]
    warnings: tuple[EnrolFinding, ...]
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What became of each photograph and vector, in the order of the request.

    A search whose answer has this `revision`, or a later one, has seen all that was enrolled.
    """

    identity: str
    results: tuple[EnrolResult, ...]
    revision: int
    request_id: str

    @property
    def refused(self) -> tuple[EnrolResult, ...]:
        return tuple(result for result in self.results if result.outcome is EnrolOutcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased with an identity, or of it.

    `receipt` is a signed document, one line of JSON, that `verify_receipt` and `Client.check_erasure` take.
    """

    template_count: int
    revision: int
    receipt: str = ""


def _new_request_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """Enrols photographs and vectors of one identity, new or known, and tells what became of each.

    `images` are the bytes of JPEG, PNG, WebP, BMP or TIFF files, at most 100 together with the vectors; the results
    come in that order, images first. Empty fields leave what is known of the identity. The guards and `several_faces`
    stand in for the gallery's policy. The same `request_id` again returns the first answer instead of enrolling twice;
    each request gets one of its own. A photograph that cannot be enrolled is no exception: its result is REFUSED and
    says why. Raises GalleryNotFoundError.
    """

    gallery: str
    identity: str
    images: Sequence[bytes] = field(default=(), kw_only=True, repr=False)
    vectors: Sequence[Vector] = field(default=(), kw_only=True, repr=False)
    _: KW_ONLY
    display_name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    consent_reference: str = ""
    purpose: str = ""
    expire_time: datetime | None = None
    several_faces: SeveralFaces | None = None
    duplicate_action: GuardAction | None = None
    mislabel_action: GuardAction | None = None
    request_id: str = field(default_factory=_new_request_id)


@dataclass(frozen=True, slots=True)
class IdentityUpdate:
    """Changes what is known of an identity and returns it as it is now; its templates stay.

    A `hold_reason` is a legal hold: nobody can erase the identity, and it does not expire, until it is set to "".
    Raises GalleryNotFoundError, IdentityNotFoundError; InvalidRequestError where nothing is to be changed.
    """

    gallery: str
    identity: str
    _: KW_ONLY
    display_name: str | Unchanged = UNCHANGED
    attributes: Mapping[str, str] | Unchanged = UNCHANGED
    consent_reference: str | Unchanged = UNCHANGED
    purpose: str | Unchanged = UNCHANGED
    hold_reason: str | Unchanged = UNCHANGED
    expire_time: datetime | Unchanged | None = UNCHANGED
