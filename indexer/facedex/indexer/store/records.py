"""Rows of the store as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.set_digest import SetDigest, TemplateDigester


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """An embedder, known by the digest of its file."""

    digest: str
    name: str
    dimension: int
    licence: str
    default_threshold: float | None
    threshold_basis: str


@dataclass(frozen=True, slots=True)
class Succession:
    """A change of a gallery's model that is under way.

    Templates get vectors of `model` beside those that they have. Until it is in force, the old model answers; from then on
    the new one does, and the old one only for those who have no vector of the new one. `scale` is the document of
    `facedex.indexer.score_scale`, `certificate` that of `facedex.indexer.calibration.certificate`.
    """

    model: ModelRecord
    is_in_force: bool
    scale: dict[str, Any] | None
    certificate_digest: str
    certificate: dict[str, Any] | None
    comparisons: dict[str, int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class GalleryRecord:
    """A gallery as it stands in the store. `policy` is the document of `facedex.indexer.policy`."""

    id: int
    name: str
    model: ModelRecord
    policy: dict[str, Any]
    revision: int
    created_at: datetime
    identity_count: int
    template_count: int
    succession: Succession | None = None

    @property
    def model_in_force(self) -> ModelRecord:
        """The model whose cosines are compared with thresholds."""
        succession = self.succession
        return succession.model if succession is not None and succession.is_in_force else self.model


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a gallery's change log goes, and the digest of its templates there."""

    revision: int
    digest: SetDigest

    def plus(self, templates: Iterable[SealedTemplate], digester: TemplateDigester) -> Standing:
        """With these templates, before the log tells of them."""
        return replace(self, digest=self.digest.plus(digester.member(each.id, each.seal) for each in templates))

    def minus(self, templates: Iterable[SealedTemplate], digester: TemplateDigester) -> Standing:
        """Without them, before the log tells of it."""
        return replace(self, digest=self.digest.minus(digester.member(each.id, each.seal) for each in templates))


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate as it stands in the store; `document` is that of `facedex.indexer.calibration.certificate`."""

    digest: str
    document: dict[str, Any]
    created_at: datetime


# Bulk enrolment: only the program that has the photographs can do it, so no server takes it up.
BULK_ENROLMENT = "enrol"
# Enrolments over a stream: only the caller has the photographs.
STREAMED_ENROLMENT = "enrol-stream"
# New data keys for everybody: the program that is told to does it.
KEY_ROTATION = "rotate-data-keys"
# What no server takes up.
DONE_BY_ITS_PROGRAM = (BULK_ENROLMENT, STREAMED_ENROLMENT, KEY_ROTATION)


class JobState(enum.Enum):
    """What has become of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in {JobState.WAITING, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Long-running work as it stands in the store. `progress` is 0 to 1; `owner` the process that works on it.

    `position` is how many items of a bulk enrolment, requests of a stream or people of a rotation are dealt with.
    """

    id: int
    kind: str
    gallery: str
    arguments: dict[str, Any]
    state: JobState
    progress: float
    cancel_requested: bool
    result: dict[str, Any] | None
    error: str
    owner: str
    created_at: datetime
    heartbeat_at: datetime
    position: int

    @property
    def is_bulk(self) -> bool:
        return self.kind == BULK_ENROLMENT

    @property
    def is_rotation(self) -> bool:
        return self.kind == KEY_ROTATION

    @property
    def item_count(self) -> int:
        """How many items a bulk enrolment has, or people a rotation of keys; 0 for other work."""
        return int(self.arguments.get("items", 0)) if self.is_bulk or self.is_rotation else 0


@dataclass(frozen=True, slots=True)
class BulkFinding:
    """What was noticed about one item of a bulk enrolment, by its position in the source; never whom it shows."""

    position: int
    is_refusal: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """How far a bulk enrolment is: every item before `position` is dealt with. `counts` are totals by outcome.

    `total` is 0 where nobody knows how many are to come.
    """

    job: JobRecord
    before: int
    position: int
    total: int
    counts: dict[str, int]
    findings: tuple[BulkFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """A template without its vector."""

    id: int
    quality: dict[str, float] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SealedTemplate:
    """A template's number, and the seal on its content."""

    id: int
    seal: bytes


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """A person. `id` is the store's number, `external_id` the caller's; nobody erases whoever has a `hold_reason`."""

    id: int
    external_id: str
    display_name: str
    attributes: dict[str, str]
    consent_reference: str
    expires_at: datetime | None
    created_at: datetime
    purpose: str = ""
    hold_reason: str = ""
    key_id: str = ""
    templates: tuple[TemplateRecord, ...] = ()

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class IdentityDetails:
    """What a caller says of a person at enrolment; None leaves what is known."""

    external_id: str
    display_name: str | None = None
    attributes: dict[str, str] | None = None
    consent_reference: str | None = None
    expires_at: datetime | None = None
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class SuccessorVector:
    """A vector (dimension,) by a model to which a gallery changes, and the digest of that model."""

    vector: NDArray[np.float32]
    model_digest: str


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """A template to add. `successor` is its vector by the model that the gallery changes to."""

    vector: NDArray[np.float32]
    source_digest: str
    quality: dict[str, float] | None = None
    crop: bytes | None = None
    successor: SuccessorVector | None = None


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """Templates to add for one identity in one transaction."""

    details: IdentityDetails
    model_digest: str
    templates: tuple[NewTemplate, ...]
    default_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AddedTemplate:
    """A template of an enrolment: new, or there already."""

    template_id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class RememberedRequest:
    """The first answer to a request id. `digest` tells the request from another one with the same id."""

    request_id: str
    digest: str
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldTemplate:
    """All that is held of one face; vector (dimension,) and crop, a PNG, are None where there is none to read."""

    id: int
    model_name: str
    model_digest: str
    quality: dict[str, float] | None
    source_digest: str
    created_at: datetime
    vector: NDArray[np.float32] | None
    crop: bytes | None


@dataclass(frozen=True, slots=True)
class HeldChange:
    """What the change log says of a person."""

    revision: int
    op: str
    template_id: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class HeldPerson:
    """All that is held about one person. `answers` are remembered for a day, for requests that are sent twice."""

    record: IdentityRecord
    templates: tuple[HeldTemplate, ...]
    changes: tuple[HeldChange, ...]
    answers: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class OverdueIdentity:
    """Somebody whose time is over; erased with the next sweep, unless held."""

    gallery: str
    external_id: str
    expired_at: datetime
    template_count: int
    hold_reason: str


class ChangeOp(enum.Enum):
    """What a change did."""

    ADD = "add"
    ERASE = "erase"
    UPDATE = "update"  # of an identity's attributes or expiry
    POLICY = "policy"  # of the gallery
    REBUILD = "rebuild"  # of every index of the gallery, asked for by an operator
    EMBED = "embed"  # a template got its vector by the model that the gallery changes to
    MODEL = "model"  # such a change begins, is in force, no longer is, or ends


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log. `vectors` (dimension,) are those of an added template that still exists.

    They are by the digests of their models: that of the gallery, and that to which it changes.
    """

    seq: int
    op: ChangeOp
    template_id: int
    identity_id: int
    vectors: dict[str, NDArray[np.float32]]

    def vector_of(self, digest: str) -> NDArray[np.float32] | None:
        """The vector by a model; None where there is none, or none any more."""
        return self.vectors.get(digest)


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """Holds where the attribute has one of the values."""

    key: str
    values: frozenset[str]


def as_utc(moment: datetime) -> datetime:
    """SQLite returns naive times; all of ours are UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
