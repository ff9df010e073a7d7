"""Who is on a photograph."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum

from facedex.client.faces import Box, Face, Vector


class FaceSelection(StrEnum):
    """Which faces of a photograph to take."""

    ALL = "ALL"
    LARGEST = "LARGEST"


class SearchMode(StrEnum):
    """What the candidates are for: an automatic decision, or a person who examines the best whatever their score."""

    IDENTIFICATION = "IDENTIFICATION"
    INVESTIGATION = "INVESTIGATION"


class Decision(StrEnum):
    """What the server concludes at its operating point."""

    MATCH = "MATCH"
    REVIEW = "REVIEW"
    """A person should look; the reason tells why."""
    NO_MATCH = "NO_MATCH"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


class DecisionReason(StrEnum):
    """Why the server concludes it."""

    ABOVE_THRESHOLD = "ABOVE_THRESHOLD"
    BELOW_THRESHOLD = "BELOW_THRESHOLD"
    REVIEW_BAND = "REVIEW_BAND"
    RUNNER_UP_TOO_CLOSE = "RUNNER_UP_TOO_CLOSE"
    NOBODY_TO_COMPARE = "NOBODY_TO_COMPARE"
    POOR_PROBE = "POOR_PROBE"
    NO_CALIBRATED_PROMISE = "NO_CALIBRATED_PROMISE"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One person that the probe may be.

    `score` is the cosine to the identity's best template, -1 to 1; it is no probability.
    """

    identity: str
    display_name: str
    score: float
    template_id: int
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FpirBound:
    """The share of strangers' searches that return somebody, with its 95 % interval, by a certificate.

    Where it was not measured in a gallery of about this size, it is extrapolated.
    """

    certificate: str
    lower: float
    estimate: float
    upper: float
    is_measured: bool


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The cosine at or above which a score is a match, and where it comes from, for people.

    It keeps the `target_fpir`, or is a fixed cosine where that is None. `fpir` is None without a certificate that fits.
    `broken_promise` says why the target of the gallery's policy is not kept; then nobody is a MATCH.
    """

    threshold: float
    basis: str
    target_fpir: float | None = None
    fpir: FpirBound | None = None
    broken_promise: str = ""


@dataclass(frozen=True, slots=True)
class IdentifiedFace:
    """One face of the probe and who it is; candidates are different identities in descending score.

    `face` is None where the probe was a vector; `vector` is None where the request did not ask for it.
    """

    face: Face | None
    decision: Decision
    reason: DecisionReason
    candidates: tuple[Candidate, ...]
    vector: Vector | None

    @property
    def box(self) -> Box | None:
        return self.face.box if self.face else None


@dataclass(frozen=True, slots=True)
class Identification:
    """Who is on the photograph: its faces, largest first, none where it shows none.

    Enrolments up to `revision` were searched. The image's size is that of the upright photograph in pixels, 0 for a
    vector.
    """

    faces: tuple[IdentifiedFace, ...]
    operating_point: OperatingPoint
    model_digest: str
    revision: int
    request_id: str
    image_width: int
    image_height: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether it is that person.

    MATCH or NO_MATCH, and the cosine between the two. `reference_face` is None for an identity.
    """

    decision: Decision
    score: float
    operating_point: OperatingPoint
    face: Face
    reference_face: Face | None
    model_digest: str
    request_id: str


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One detected face, and its vector where the request asked for it."""

    face: Face
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Detection:
    """The faces on a photograph, largest first; the image's size is that of the upright photograph in pixels."""

    faces: tuple[DetectedFace, ...]
    image_width: int
    image_height: int
    detector_digest: str
    request_id: str


@dataclass(frozen=True, slots=True)
class IdentifyRequest:
    """Searches each face of a photograph, or one vector, in a gallery (1:N) and tells who it is.

    The probe is the bytes of a JPEG, PNG, WebP, BMP or TIFF file, or a vector of the gallery's model. `limit` is the
    most candidates for each face, 1 to 1 000. `threshold` is a cosine, and `target_fpir` a share that the gallery's
    certificate has to carry, instead of the gallery's own. Only identities are searched that have, for each key of
    `filters`, one of its values, and that are not in `excluded_identities`. Where several servers share a database, the
    one that answers has seen every change up to `least_revision`: with that of an enrolment, whoever it enrolled is found.
    Raises GalleryNotFoundError, UnreadableImageError, InvalidVectorError, WrongModelError, NotCalibratedError,
    PromiseRefusedError.
    """

    gallery: str
    probe: bytes | Vector = field(repr=False)
    _: KW_ONLY
    limit: int = 5
    threshold: float | None = None
    target_fpir: float | None = None
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    excluded_identities: Sequence[str] = ()
    faces: FaceSelection = FaceSelection.ALL
    mode: SearchMode = SearchMode.IDENTIFICATION
    return_vectors: bool = False
    request_id: str = ""
    least_revision: int = 0


@dataclass(frozen=True, slots=True)
class VerifyIdentityRequest:
    """Tells whether a photograph shows an enrolled identity (1:1); the best of its templates counts.

    Several faces are refused unless `faces` is LARGEST. `threshold` is a cosine instead of the gallery's.
    Raises GalleryNotFoundError, IdentityNotFoundError, UnreadableImageError, NoFaceError, SeveralFacesError.
    """

    gallery: str
    identity: str
    image: bytes = field(repr=False)
    _: KW_ONLY
    threshold: float | None = None
    faces: FaceSelection | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class VerifyImagesRequest:
    """Tells whether two photographs show the same person (1:1).

    Model and threshold are those of the gallery, or the server's defaults where none is named. Several faces are
    refused unless `faces` is LARGEST. Raises GalleryNotFoundError, UnreadableImageError, NoFaceError,
    SeveralFacesError.
    """

    image: bytes = field(repr=False)
    reference: bytes = field(repr=False)
    _: KW_ONLY
    gallery: str = ""
    threshold: float | None = None
    faces: FaceSelection | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """Finds and measures the faces of a photograph, without comparing them with anybody.

    Raises UnreadableImageError.
    """

    image: bytes = field(repr=False)
    _: KW_ONLY
    return_vectors: bool = False
    request_id: str = ""
