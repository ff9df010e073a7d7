"""From values to the wire. The one place that builds request messages."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from facedex.client.faces import Vector
from facedex.client.galleries import (
    DecisionPolicy,
    EnrolmentPolicy,
    GalleryUpdate,
    GuardAction,
    NewGallery,
    QualityLimits,
    SeveralFaces,
    Unchanged,
)
from facedex.client.identification import (
    DetectRequest,
    FaceSelection,
    IdentifyRequest,
    SearchMode,
    VerifyIdentityRequest,
    VerifyImagesRequest,
)
from facedex.client.identities import EnrolRequest, IdentityUpdate
from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2, identification_pb2


def create_gallery(gallery: NewGallery) -> gallery_pb2.CreateGalleryRequest:
    return gallery_pb2.CreateGalleryRequest(
        gallery=gallery_pb2.Gallery(
            name=gallery.name,
            decision_policy=_decision_policy(gallery.decision_policy),
            enrolment_policy=_enrolment_policy(gallery.enrolment_policy),
            retention=_duration(gallery.retention),
            keep_crops=gallery.keep_crops,
        )
    )


def update_gallery(update: GalleryUpdate) -> gallery_pb2.UpdateGalleryRequest:
    gallery = gallery_pb2.Gallery(name=update.name)
    if not isinstance(update.decision_policy, Unchanged):
        gallery.decision_policy.CopyFrom(_decision_policy(update.decision_policy))
    if not isinstance(update.enrolment_policy, Unchanged):
        gallery.enrolment_policy.CopyFrom(_enrolment_policy(update.enrolment_policy))
    if isinstance(update.retention, timedelta):
        gallery.retention.FromTimedelta(update.retention)
    if not isinstance(update.keep_crops, Unchanged):
        gallery.keep_crops = update.keep_crops
    mask = _mask(
        decision_policy=update.decision_policy,
        enrolment_policy=update.enrolment_policy,
        retention=update.retention,
        keep_crops=update.keep_crops,
    )
    return gallery_pb2.UpdateGalleryRequest(gallery=gallery, update_mask=mask)


def enrol(request: EnrolRequest) -> enrolment_pb2.EnrolRequest:
    identity = enrolment_pb2.Identity(
        id=request.identity,
        display_name=request.display_name,
        attributes=request.attributes,
        consent_reference=request.consent_reference,
        purpose=request.purpose,
        expire_time=_timestamp(request.expire_time),
    )
    images = [enrolment_pb2.EnrolItem(image=image) for image in request.images]
    vectors = [enrolment_pb2.EnrolItem(vector=_vector(vector)) for vector in request.vectors]
    return enrolment_pb2.EnrolRequest(
        gallery=request.gallery,
        identity=identity,
        items=images + vectors,
        request_id=request.request_id,
        several_faces=_several_faces(request.several_faces),
        duplicate_action=_guard_action(request.duplicate_action),
        mislabel_action=_guard_action(request.mislabel_action),
    )


def update_identity(update: IdentityUpdate) -> enrolment_pb2.UpdateIdentityRequest:
    identity = enrolment_pb2.Identity(id=update.identity)
    if not isinstance(update.display_name, Unchanged):
        identity.display_name = update.display_name
    if not isinstance(update.attributes, Unchanged):
        identity.attributes.update(update.attributes)
    if not isinstance(update.consent_reference, Unchanged):
        identity.consent_reference = update.consent_reference
    if not isinstance(update.purpose, Unchanged):
        identity.purpose = update.purpose
    if not isinstance(update.hold_reason, Unchanged):
        identity.hold_reason = update.hold_reason
    if isinstance(update.expire_time, datetime):
        identity.expire_time.FromDatetime(_aware(update.expire_time))
    mask = _mask(
        display_name=update.display_name,
        attributes=update.attributes,
        consent_reference=update.consent_reference,
        purpose=update.purpose,
        hold_reason=update.hold_reason,
        expire_time=update.expire_time,
    )
    return enrolment_pb2.UpdateIdentityRequest(gallery=update.gallery, identity=identity, update_mask=mask)


def identify(request: IdentifyRequest) -> identification_pb2.IdentifyRequest:
    message = identification_pb2.IdentifyRequest(
        gallery=request.gallery,
        limit=request.limit,
        threshold=request.threshold,
        target_fpir=request.target_fpir,
        filters=attribute_filters(request.filters),
        excluded_identity_ids=request.excluded_identities,
        faces=_face_selection(request.faces),
        mode=_search_mode(request.mode),
        return_vectors=request.return_vectors,
        request_id=request.request_id,
        least_revision=request.least_revision,
    )
    if isinstance(request.probe, Vector):
        message.vector.CopyFrom(_vector(request.probe))
    else:
        message.image = request.probe
    return message


def verify_identity(request: VerifyIdentityRequest) -> identification_pb2.VerifyRequest:
    return identification_pb2.VerifyRequest(
        gallery=request.gallery,
        image=request.image,
        identity_id=request.identity,
        threshold=request.threshold,
        faces=_face_selection(request.faces),
        request_id=request.request_id,
    )


def verify_images(request: VerifyImagesRequest) -> identification_pb2.VerifyRequest:
    return identification_pb2.VerifyRequest(
        gallery=request.gallery,
        image=request.image,
        reference_image=request.reference,
        threshold=request.threshold,
        faces=_face_selection(request.faces),
        request_id=request.request_id,
    )


def detect(request: DetectRequest) -> identification_pb2.DetectRequest:
    return identification_pb2.DetectRequest(
        image=request.image, return_vectors=request.return_vectors, request_id=request.request_id
    )


def attribute_filters(filters: Mapping[str, Sequence[str]]) -> list[enrolment_pb2.AttributeFilter]:
    return [enrolment_pb2.AttributeFilter(key=key, values=values) for key, values in filters.items()]


def _vector(vector: Vector) -> face_pb2.Vector:
    return face_pb2.Vector(values=vector.values, model_digest=vector.model_digest)


def _decision_policy(policy: DecisionPolicy) -> gallery_pb2.DecisionPolicy:
    message = gallery_pb2.DecisionPolicy(review_cosine=policy.review_cosine, runner_up_margin=policy.runner_up_margin)
    if policy.cosine is not None:
        message.cosine = policy.cosine
    if policy.target_fpir is not None:
        message.target_fpir = policy.target_fpir
    return message


def _enrolment_policy(policy: EnrolmentPolicy) -> gallery_pb2.EnrolmentPolicy:
    return gallery_pb2.EnrolmentPolicy(
        several_faces=_several_faces(policy.several_faces),
        duplicate_action=_guard_action(policy.duplicate_action),
        mislabel_action=_guard_action(policy.mislabel_action),
        quality_limits=_quality_limits(policy.quality_limits),
    )


def _quality_limits(limits: QualityLimits) -> gallery_pb2.QualityLimits:
    return gallery_pb2.QualityLimits(
        min_detector_score=limits.min_detector_score,
        min_size_px=limits.min_size_px,
        min_sharpness=limits.min_sharpness,
        min_brightness=limits.min_brightness,
        max_brightness=limits.max_brightness,
        max_yaw_degrees=limits.max_yaw_degrees,
        max_pitch_degrees=limits.max_pitch_degrees,
        max_roll_degrees=limits.max_roll_degrees,
    )


def _several_faces(choice: SeveralFaces | None) -> gallery_pb2.SeveralFaces.ValueType:
    return gallery_pb2.SeveralFaces.Value(_wire_name("SEVERAL_FACES", choice))


def _guard_action(choice: GuardAction | None) -> gallery_pb2.GuardAction.ValueType:
    return gallery_pb2.GuardAction.Value(_wire_name("GUARD_ACTION", choice))


def _face_selection(choice: FaceSelection | None) -> identification_pb2.FaceSelection.ValueType:
    return identification_pb2.FaceSelection.Value(_wire_name("FACE_SELECTION", choice))


def _search_mode(choice: SearchMode) -> identification_pb2.SearchMode.ValueType:
    return identification_pb2.SearchMode.Value(_wire_name("SEARCH_MODE", choice))


def _wire_name(prefix: str, choice: StrEnum | None) -> str:
    return f"{prefix}_{choice.value if choice else 'UNSPECIFIED'}"


def _mask(**fields: object) -> FieldMask:
    return FieldMask(paths=[name for name, value in fields.items() if not isinstance(value, Unchanged)])


def _duration(period: timedelta | None) -> Duration | None:
    if period is None:
        return None
    message = Duration()
    message.FromTimedelta(period)
    return message


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(_aware(moment))
    return message


def _aware(moment: datetime) -> datetime:
    """The wire has no time zones: a moment without one would be taken for UTC, silently."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; say which, for instance datetime.now(UTC)")
    return moment
