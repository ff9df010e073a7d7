"""From the wire to values. The one place that reads answer messages."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from facedex.client.calibration import Certificate, ResolvedThreshold
from facedex.client.consistency import ConsistencyFinding, ConsistencyReport
from facedex.client.erasures import ErasureCheck, ErasureReason, ErasureRecord, ErasureScope
from facedex.client.faces import Box, Face, Point, Quality, Vector
from facedex.client.galleries import (
    DecisionPolicy,
    EnrolmentPolicy,
    Gallery,
    GalleryErasure,
    GuardAction,
    QualityLimits,
    SeveralFaces,
)
from facedex.client.identification import (
    Candidate,
    Decision,
    DecisionReason,
    DetectedFace,
    Detection,
    FpirBound,
    Identification,
    IdentifiedFace,
    OperatingPoint,
    Verification,
)
from facedex.client.identities import (
    EnrolFinding,
    Enrolment,
    EnrolOutcome,
    EnrolReason,
    EnrolResult,
    Erasure,
    Identity,
    Template,
)
from facedex.client.jobs import Job, JobFinding, JobState
from facedex.client.servers import IndexInfo, ModelInfo, PromiseInfo, ServerInfo
from facedex.v1 import (
    calibration_pb2,
    consistency_pb2,
    enrolment_pb2,
    erasure_pb2,
    face_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

Choice = TypeVar("Choice", bound=StrEnum)


def face(message: face_pb2.Face) -> Face:
    box = message.box
    return Face(
        box=Box(box.x, box.y, box.width, box.height),
        landmarks=tuple(Point(point.x, point.y) for point in message.landmarks),
        quality=_quality(message.quality),
    )


def gallery(message: gallery_pb2.Gallery) -> Gallery:
    return Gallery(
        name=message.name,
        model_name=message.model_name,
        model_digest=message.model_digest,
        decision_policy=_decision_policy(message.decision_policy),
        enrolment_policy=_enrolment_policy(message.enrolment_policy),
        retention=message.retention.ToTimedelta() if message.HasField("retention") else None,
        keep_crops=message.keep_crops,
        revision=message.revision,
        identity_count=message.identity_count,
        template_count=message.template_count,
        create_time=_moment(message, "create_time"),
    )


def identity(message: enrolment_pb2.Identity) -> Identity:
    return Identity(
        id=message.id,
        display_name=message.display_name,
        attributes=dict(message.attributes),
        consent_reference=message.consent_reference,
        purpose=message.purpose,
        hold_reason=message.hold_reason,
        expire_time=_moment(message, "expire_time"),
        templates=tuple(_template(template) for template in message.templates),
        create_time=_moment(message, "create_time"),
    )


def enrolment(message: enrolment_pb2.EnrolResponse) -> Enrolment:
    return Enrolment(
        identity=message.identity_id,
        results=tuple(_enrol_result(result) for result in message.results),
        revision=message.revision,
        request_id=message.request_id,
    )


def erasure(message: enrolment_pb2.DeleteIdentityResponse) -> Erasure:
    return Erasure(template_count=message.deleted_template_count, revision=message.revision, receipt=message.receipt)


def template_erasure(message: enrolment_pb2.DeleteTemplateResponse) -> Erasure:
    return Erasure(template_count=1, revision=message.revision, receipt=message.receipt)


def gallery_erasure(message: gallery_pb2.DeleteGalleryResponse) -> GalleryErasure:
    return GalleryErasure(identity_count=message.deleted_identity_count, receipt=message.receipt)


def erasure_record(message: erasure_pb2.Erasure) -> ErasureRecord:
    scopes, reasons = erasure_pb2.ErasureScope.DESCRIPTOR, erasure_pb2.ErasureReason.DESCRIPTOR
    return ErasureRecord(
        id=message.id,
        scope=_received(ErasureScope, scopes, message.scope, prefix="ERASURE_SCOPE_") or ErasureScope.UNKNOWN,
        reason=_received(ErasureReason, reasons, message.reason, prefix="ERASURE_REASON_") or ErasureReason.UNKNOWN,
        gallery=message.gallery,
        identity_number=message.identity_number,
        identity_count=message.identity_count,
        template_count=message.template_count,
        revision=message.revision,
        erase_time=_moment(message, "erase_time"),
        horizon_time=_moment(message, "horizon_time"),
        purge_time=_moment(message, "purge_time"),
        receipt=message.receipt,
    )


def erasure_check(message: erasure_pb2.CheckErasureResponse) -> ErasureCheck:
    known = message.HasField("erasure")
    return ErasureCheck(held=tuple(message.held), record=erasure_record(message.erasure) if known else None)


def identification(message: identification_pb2.IdentifyResponse) -> Identification:
    return Identification(
        faces=tuple(_identified_face(item) for item in message.faces),
        operating_point=_operating_point(message.operating_point),
        model_digest=message.model_digest,
        revision=message.revision,
        request_id=message.request_id,
        image_width=message.image_width,
        image_height=message.image_height,
    )


def verification(message: identification_pb2.VerifyResponse) -> Verification:
    return Verification(
        decision=_decision(message.decision),
        score=message.score,
        operating_point=_operating_point(message.operating_point),
        face=face(message.face),
        reference_face=face(message.reference_face) if message.HasField("reference_face") else None,
        model_digest=message.model_digest,
        request_id=message.request_id,
    )


def detection(message: identification_pb2.DetectResponse) -> Detection:
    return Detection(
        faces=tuple(_detected_face(item) for item in message.faces),
        image_width=message.image_width,
        image_height=message.image_height,
        detector_digest=message.detector_digest,
        request_id=message.request_id,
    )


def consistency(message: consistency_pb2.CheckConsistencyResponse) -> ConsistencyReport:
    return ConsistencyReport(
        gallery=message.gallery,
        revision=message.revision,
        template_count=message.template_count,
        duration_seconds=message.duration_seconds,
        findings=tuple(
            ConsistencyFinding(each.fault, each.template_id or None, each.detail, each.remedy)
            for each in message.findings
        ),
        counts={each.fault: each.count for each in message.counts},
    )


def server_info(message: operations_pb2.GetServerInfoResponse) -> ServerInfo:
    return ServerInfo(
        version=message.version,
        detector=_model_info(message.detector),
        embedder=_model_info(message.embedder),
        max_image_bytes=message.max_image_bytes,
        max_image_pixels=message.max_image_pixels,
        max_message_bytes=message.max_message_bytes,
        max_concurrent_requests=message.max_concurrent_requests,
        loaded_share=message.loaded_share,
        indexes=tuple(_index_info(each) for each in message.indexes),
        index_checked_total=message.index_checked_total,
        index_missed_total=message.index_missed_total,
        promises=tuple(_promise_info(each) for each in message.promises),
        devices=message.devices,
    )


def _promise_info(message: operations_pb2.PromiseInfo) -> PromiseInfo:
    return PromiseInfo(
        gallery=message.gallery,
        operating_point=_operating_point(message.operating_point),
        watched_searches=message.watched_searches,
        drift=message.drift,
    )


def certificate(message: calibration_pb2.Certificate) -> Certificate:
    return Certificate(
        digest=message.digest,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        document=message.document,
    )


def resolved_threshold(message: calibration_pb2.ResolveThresholdResponse) -> ResolvedThreshold:
    has_fnir = message.HasField("fnir_estimate")
    return ResolvedThreshold(
        operating_point=_operating_point(message.operating_point),
        fnir=(message.fnir_lower, message.fnir_estimate, message.fnir_upper) if has_fnir else None,
    )


def job_finding(message: operations_pb2.JobFinding) -> JobFinding:
    return JobFinding(message.position, message.is_refusal, message.reason, message.message)


def job(message: operations_pb2.Job) -> Job:
    wire = operations_pb2.JobState.DESCRIPTOR
    return Job(
        id=message.id,
        kind=message.kind,
        gallery=message.gallery,
        state=_received(JobState, wire, message.state, prefix="JOB_STATE_") or JobState.UNKNOWN,
        progress=message.progress,
        result=json.loads(message.result) if message.result else None,
        error=message.error,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        owner=message.owner,
        update_time=message.update_time.ToDatetime(tzinfo=UTC),
        is_abandoned=message.is_abandoned,
        item_count=message.item_count,
        done_count=message.done_count,
    )


def _index_info(message: operations_pb2.IndexInfo) -> IndexInfo:
    return IndexInfo(
        gallery=message.gallery,
        template_count=message.template_count,
        revision=message.revision,
        bits_per_component=message.bits_per_component,
        operating_score=message.operating_score,
        share_compared_exactly=message.share_compared_exactly,
        reason=message.reason,
    )


def _quality(message: face_pb2.Quality) -> Quality:
    return Quality(
        detector_score=message.detector_score,
        size_px=message.size_px,
        sharpness=message.sharpness,
        brightness=message.brightness,
        yaw_degrees=message.yaw_degrees,
        pitch_degrees=message.pitch_degrees,
        roll_degrees=message.roll_degrees,
    )


def _template(message: enrolment_pb2.Template) -> Template:
    return Template(
        id=message.id,
        quality=_quality(message.quality) if message.HasField("quality") else None,
        create_time=_moment(message, "create_time"),
    )


def _enrol_result(message: enrolment_pb2.EnrolResult) -> EnrolResult:
    outcome = _received(EnrolOutcome, enrolment_pb2.EnrolOutcome.DESCRIPTOR, message.outcome, prefix="ENROL_OUTCOME_")
    return EnrolResult(
        outcome=outcome or EnrolOutcome.UNKNOWN,
        template_id=message.template_id,
        refusals=tuple(_finding(finding) for finding in message.refusals),
        warnings=tuple(_finding(finding) for finding in message.warnings),
        faces=tuple(face(item) for item in message.faces),
    )


def _finding(message: enrolment_pb2.EnrolFinding) -> EnrolFinding:
    reason = _received(EnrolReason, enrolment_pb2.EnrolReason.DESCRIPTOR, message.reason, prefix="ENROL_REASON_")
    return EnrolFinding(
        reason=reason or EnrolReason.UNKNOWN,
        message=message.message,
        other_identity=message.other_identity_id,
        score=message.score,
    )


def _identified_face(message: identification_pb2.IdentifiedFace) -> IdentifiedFace:
    return IdentifiedFace(
        face=face(message.face) if message.HasField("face") else None,
        decision=_decision(message.decision),
        reason=_decision_reason(message.reason),
        candidates=tuple(_candidate(candidate) for candidate in message.candidates),
        vector=_vector(message.vector) if message.HasField("vector") else None,
    )


def _candidate(message: identification_pb2.Candidate) -> Candidate:
    return Candidate(
        identity=message.identity_id,
        display_name=message.display_name,
        score=message.score,
        template_id=message.template_id,
        attributes=dict(message.attributes),
    )


def _detected_face(message: identification_pb2.DetectedFace) -> DetectedFace:
    return DetectedFace(face(message.face), _vector(message.vector) if message.HasField("vector") else None)


def _decision(number: int) -> Decision:
    return _received(Decision, identification_pb2.Decision.DESCRIPTOR, number, prefix="DECISION_") or Decision.UNKNOWN


def _decision_reason(number: int) -> DecisionReason:
    wire = identification_pb2.DecisionReason.DESCRIPTOR
    return _received(DecisionReason, wire, number, prefix="DECISION_REASON_") or DecisionReason.UNKNOWN


def _operating_point(message: identification_pb2.OperatingPoint) -> OperatingPoint:
    return OperatingPoint(
        threshold=message.threshold,
        basis=message.basis,
        target_fpir=message.target_fpir if message.HasField("target_fpir") else None,
        fpir=_fpir_bound(message.fpir) if message.HasField("fpir") else None,
        broken_promise=message.broken_promise,
    )


def _fpir_bound(message: identification_pb2.FpirBound) -> FpirBound:
    return FpirBound(
        certificate=message.certificate,
        lower=message.lower,
        estimate=message.estimate,
        upper=message.upper,
        is_measured=message.is_measured,
    )


def _vector(message: face_pb2.Vector) -> Vector:
    return Vector(message.values, message.model_digest)


def _decision_policy(message: gallery_pb2.DecisionPolicy) -> DecisionPolicy:
    return DecisionPolicy(
        cosine=message.cosine if message.HasField("cosine") else None,
        target_fpir=message.target_fpir if message.HasField("target_fpir") else None,
        review_cosine=message.review_cosine if message.HasField("review_cosine") else None,
        runner_up_margin=message.runner_up_margin,
    )


def _enrolment_policy(message: gallery_pb2.EnrolmentPolicy) -> EnrolmentPolicy:
    return EnrolmentPolicy(
        several_faces=_several_faces(message.several_faces),
        duplicate_action=_guard_action(message.duplicate_action),
        mislabel_action=_guard_action(message.mislabel_action),
        quality_limits=_quality_limits(message.quality_limits),
    )


def _several_faces(number: int) -> SeveralFaces | None:
    return _received(SeveralFaces, gallery_pb2.SeveralFaces.DESCRIPTOR, number, prefix="SEVERAL_FACES_")


def _guard_action(number: int) -> GuardAction | None:
    return _received(GuardAction, gallery_pb2.GuardAction.DESCRIPTOR, number, prefix="GUARD_ACTION_")


def _quality_limits(message: gallery_pb2.QualityLimits) -> QualityLimits:
    return QualityLimits(**{field.name: value for field, value in message.ListFields()})


def _model_info(message: operations_pb2.ModelInfo) -> ModelInfo:
    return ModelInfo(
        name=message.name,
        digest=message.digest,
        licence=message.licence,
        commercial_use=message.commercial_use,
        dimension=message.dimension,
        default_threshold=message.default_threshold if message.HasField("default_threshold") else None,
        threshold_basis=message.threshold_basis,
    )


def _received(choices: type[Choice], wire: EnumDescriptor, number: int, *, prefix: str) -> Choice | None:
    """The choice that a number of the wire means; None where it is unspecified, or newer than this client."""
    known = wire.values_by_number.get(number)
    return choices.__members__.get(known.name.removeprefix(prefix)) if known else None


def _moment(message: Message, field: str) -> datetime | None:
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC) if message.HasField(field) else None
