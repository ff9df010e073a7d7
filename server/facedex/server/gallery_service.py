from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.duration_pb2 import Duration

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.policy import (
    DecisionPolicy,
    EnrolmentPolicy,
    GalleryPolicy,
    GuardAction,
    QualityLimits,
    SeveralFaces,
    policy_from_json,
)
from facedex.server.paging import name_before, page_size, token_after
from facedex.server.translate import wire_time
from facedex.v1 import gallery_pb2, gallery_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.store.records import GalleryRecord
    from facedex.server.gate import Gate

SEVERAL_FACES: dict[int, SeveralFaces | None] = {
    gallery_pb2.SEVERAL_FACES_UNSPECIFIED: None,
    gallery_pb2.SEVERAL_FACES_REFUSE: SeveralFaces.REFUSE,
    gallery_pb2.SEVERAL_FACES_LARGEST: SeveralFaces.LARGEST,
}
GUARD_ACTION: dict[int, GuardAction | None] = {
    gallery_pb2.GUARD_ACTION_UNSPECIFIED: None,
    gallery_pb2.GUARD_ACTION_REFUSE: GuardAction.REFUSE,
    gallery_pb2.GUARD_ACTION_WARN: GuardAction.WARN,
    gallery_pb2.GUARD_ACTION_ALLOW: GuardAction.ALLOW,
}
WIRE_SEVERAL_FACES = {
    SeveralFaces.REFUSE: gallery_pb2.SEVERAL_FACES_REFUSE,
    SeveralFaces.LARGEST: gallery_pb2.SEVERAL_FACES_LARGEST,
}
WIRE_GUARD_ACTION = {
    GuardAction.REFUSE: gallery_pb2.GUARD_ACTION_REFUSE,
    GuardAction.WARN: gallery_pb2.GUARD_ACTION_WARN,
    GuardAction.ALLOW: gallery_pb2.GUARD_ACTION_ALLOW,
}
Value = TypeVar("Value")
UPDATABLE = ("decision_policy", "enrolment_policy", "retention", "keep_crops")


class GalleryService(gallery_pb2_grpc.GalleryServiceServicer):
    """Translates calls about galleries."""

    def __init__(self, galleries: Galleries, gate: Gate) -> None:
        self._galleries = galleries
        self._gate = gate

    def CreateGallery(
        self, request: gallery_pb2.CreateGalleryRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.CreateGalleryResponse:
        record = self._galleries.create(request.gallery.name, domain_policy(request.gallery))
        return gallery_pb2.CreateGalleryResponse(gallery=wire_gallery(record))

    def GetGallery(
        self, request: gallery_pb2.GetGalleryRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.GetGalleryResponse:
        return gallery_pb2.GetGalleryResponse(gallery=wire_gallery(self._galleries.record(request.name)))

    def ListGalleries(
        self, request: gallery_pb2.ListGalleriesRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.ListGalleriesResponse:
        size = page_size(request.page_size)
        after, among = name_before(request.page_token), self._gate.caller_of(context).galleries
        records = self._galleries.store.galleries(after=after, limit=size + 1, among=among)
        return gallery_pb2.ListGalleriesResponse(
            galleries=[wire_gallery(each) for each in records[:size]],
            next_page_token=token_after(records[size - 1].name) if len(records) > size else "",
        )

    def UpdateGallery(
        self, request: gallery_pb2.UpdateGalleryRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.UpdateGalleryResponse:
        name = self._galleries.record(request.gallery.name).name
        new, paths = domain_policy(request.gallery), request.update_mask.paths
        record = self._galleries.change_policy(name, lambda old: _replaced(old, new, paths))
        return gallery_pb2.UpdateGalleryResponse(gallery=wire_gallery(record))

    def DeleteGallery(
        self, request: gallery_pb2.DeleteGalleryRequest, context: grpc.ServicerContext
    ) -> gallery_pb2.DeleteGalleryResponse:
        erased = self._galleries.delete(request.name)
        return gallery_pb2.DeleteGalleryResponse(deleted_identity_count=erased.identity_count, receipt=erased.receipt)


def _replaced(old: GalleryPolicy, new: GalleryPolicy, paths: Sequence[str]) -> GalleryPolicy:
    unknown = [path for path in paths if path not in UPDATABLE]
    if unknown or not paths:
        raise InvalidArgument("update_mask", f"names what to replace: one or more of {', '.join(UPDATABLE)}")
    if "decision_policy" in paths:
        old = replace(old, decision=new.decision)
    if "enrolment_policy" in paths:
        old = replace(old, enrolment=new.enrolment)
    if "retention" in paths:
        old = replace(old, retention_seconds=new.retention_seconds)
    if "keep_crops" in paths:
        old = replace(old, keep_crops=new.keep_crops)
    return old


def domain_policy(gallery: gallery_pb2.Gallery) -> GalleryPolicy:
    return GalleryPolicy(
        decision=_decision(gallery.decision_policy),
        enrolment=_enrolment(gallery.enrolment_policy),
        retention_seconds=_seconds(gallery.retention) if gallery.HasField("retention") else None,
        keep_crops=gallery.keep_crops,
    )


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / 1e9


def _decision(policy: gallery_pb2.DecisionPolicy) -> DecisionPolicy:
    return DecisionPolicy(
        cosine=policy.cosine if policy.HasField("cosine") else None,
        target_fpir=policy.target_fpir if policy.HasField("target_fpir") else None,
        review_cosine=policy.review_cosine if policy.HasField("review_cosine") else None,
        runner_up_margin=policy.runner_up_margin,
    )


def _enrolment(policy: gallery_pb2.EnrolmentPolicy) -> EnrolmentPolicy:
    default = EnrolmentPolicy()
    return EnrolmentPolicy(
        several_faces=known_value(SEVERAL_FACES, policy.several_faces, "several_faces") or default.several_faces,
        duplicate_action=known_value(GUARD_ACTION, policy.duplicate_action, "duplicate_action")
        or default.duplicate_action,
        mislabel_action=known_value(GUARD_ACTION, policy.mislabel_action, "mislabel_action") or default.mislabel_action,
        quality_limits=_limits(policy.quality_limits),
    )


def _limits(limits: gallery_pb2.QualityLimits) -> QualityLimits:
    return QualityLimits(**{field.name: value for field, value in limits.ListFields()})


def known_value(table: dict[int, Value], number: int, field: str) -> Value:
    """The meaning of an enum's number; a newer client may send one that this server does not know."""
    if number not in table:
        raise InvalidArgument(field, f"has the value {number}, which this server does not know")
    return table[number]


def wire_gallery(record: GalleryRecord) -> gallery_pb2.Gallery:
    policy = policy_from_json(record.policy)
    return gallery_pb2.Gallery(
        name=record.name,
        model_digest=record.model.digest,
        model_name=record.model.name,
        decision_policy=_wire_decision(policy.decision),
        enrolment_policy=_wire_enrolment(policy.enrolment),
        retention=_wire_duration(policy.retention_seconds),
        keep_crops=policy.keep_crops,
        revision=record.revision,
        identity_count=record.identity_count,
        template_count=record.template_count,
        create_time=wire_time(record.created_at),
    )


def _wire_duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _wire_decision(policy: DecisionPolicy) -> gallery_pb2.DecisionPolicy:
    wire = gallery_pb2.DecisionPolicy(review_cosine=policy.review_cosine, runner_up_margin=policy.runner_up_margin)
    if policy.cosine is not None:
        wire.cosine = policy.cosine
    if policy.target_fpir is not None:
        wire.target_fpir = policy.target_fpir
    return wire


def _wire_enrolment(policy: EnrolmentPolicy) -> gallery_pb2.EnrolmentPolicy:
    limits = policy.quality_limits
    return gallery_pb2.EnrolmentPolicy(
        several_faces=WIRE_SEVERAL_FACES[policy.several_faces],
        duplicate_action=WIRE_GUARD_ACTION[policy.duplicate_action],
        mislabel_action=WIRE_GUARD_ACTION[policy.mislabel_action],
        quality_limits=gallery_pb2.QualityLimits(
            min_detector_score=limits.min_detector_score,
            min_size_px=limits.min_size_px,
            min_sharpness=limits.min_sharpness,
            min_brightness=limits.min_brightness,
            max_brightness=limits.max_brightness,
            max_yaw_degrees=limits.max_yaw_degrees,
            max_pitch_degrees=limits.max_pitch_degrees,
            max_roll_degrees=limits.max_roll_degrees,
        ),
    )
