from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from facedex.indexer.enroller import Submission
from facedex.indexer.enrolment import Enrol, EnrolItem, EnrolOutcome, EnrolReason, VectorItem
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.failpoints import Step
from facedex.indexer.store.records import IdentityDetails
from facedex.indexer.texts import checked_attributes, checked_identity_id, checked_text
from facedex.indexer.vision.face import Quality
from facedex.server.call import check_request_id, checkpoint_of
from facedex.server.enrol_stream import EnrolLine, Ready
from facedex.server.gallery_service import GUARD_ACTION, SEVERAL_FACES, known_value
from facedex.server.interceptor import log_unexpected
from facedex.server.paging import name_before, page_size, token_after
from facedex.server.status import failure_of, is_expected
from facedex.server.stream_job import stream_job
from facedex.server.translate import (
    domain_filters,
    domain_time,
    domain_vector,
    wire_face,
    wire_quality,
    wire_time,
)
from facedex.v1 import enrolment_pb2, enrolment_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    import grpc

    from facedex.indexer.enrolment import Enrolment, EnrolResult, Finding
    from facedex.indexer.galleries import Galleries
    from facedex.indexer.store.records import IdentityRecord, TemplateRecord
    from facedex.server.enrol_stream import Answer
    from facedex.server.patience import Patience
    from facedex.server.recorder import Recorder

OUTCOMES = {
    EnrolOutcome.ENROLLED: enrolment_pb2.ENROL_OUTCOME_ENROLLED,
    EnrolOutcome.ALREADY_ENROLLED: enrolment_pb2.ENROL_OUTCOME_ALREADY_ENROLLED,
    EnrolOutcome.REFUSED: enrolment_pb2.ENROL_OUTCOME_REFUSED,
}
REASONS = {reason: enrolment_pb2.EnrolReason.Value(f"ENROL_REASON_{reason.name}") for reason in EnrolReason}
# Field on the wire → column in the store.
UPDATABLE = {
    "display_name": "display_name",
    "attributes": "attributes",
    "consent_reference": "consent_reference",
    "purpose": "purpose",
    "hold_reason": "hold_reason",
    "expire_time": "expires_at",
}
# gRPC clients take messages of 4 MiB unless they are told otherwise; a page that would be larger is cut shorter.
MAX_PAGE_BYTES = 3 * 2**20


class EnrolmentService(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Translates calls about identities and their templates."""

    def __init__(self, galleries: Galleries, recorder: Recorder, patience: Patience, lookers: Executor) -> None:
        self._galleries = galleries
        self._recorder = recorder
        self._patience = patience
        self._lookers = lookers

    def Enrol(self, request: enrolment_pb2.EnrolRequest, context: grpc.ServicerContext) -> enrolment_pb2.EnrolResponse:
        checkpoint = checkpoint_of(context)
        ready = self._looked_at(request, checkpoint)
        events = self._recorder.events_of_change(context)
        enrolment = ready.enroller.commit_shared(Submission(ready.prepared, checkpoint, events))
        self._galleries.store.reached(Step.BEFORE_REPLY)
        return _wire_enrolment(enrolment, request.request_id)

    def EnrolStream(
        self, request_iterator: Iterator[enrolment_pb2.EnrolStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[enrolment_pb2.EnrolStreamResponse]:
        checkpoint = checkpoint_of(context)
        line = EnrolLine(lambda request: self._looked_at(request, checkpoint), self._lookers)
        with stream_job(self._galleries.store) as job, self._patience.while_busy(context, line.is_busy):
            requests = job.watched(request.enrol for request in request_iterator)
            for answer in line.answers(requests, while_idle=job.idle):
                job.note(answer)
                yield self._streamed(answer)

    def GetIdentity(
        self, request: enrolment_pb2.GetIdentityRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.GetIdentityResponse:
        gallery = self._galleries.get(request.gallery)
        record = self._galleries.store.identity(gallery.record, checked_identity_id(request.identity_id))
        return enrolment_pb2.GetIdentityResponse(identity=wire_identity(record))

    def ListIdentities(
        self, request: enrolment_pb2.ListIdentitiesRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.ListIdentitiesResponse:
        gallery = self._galleries.get(request.gallery)
        size = page_size(request.page_size)
        filters = domain_filters(request.filters)
        after = name_before(request.page_token)
        records = self._galleries.store.identities(gallery.record, after=after, limit=size + 1, filters=filters)
        page = _light_enough([wire_identity(each) for each in records[:size]])
        return enrolment_pb2.ListIdentitiesResponse(
            identities=page,
            next_page_token=token_after(page[-1].id) if len(records) > len(page) else "",
        )

    def UpdateIdentity(
        self, request: enrolment_pb2.UpdateIdentityRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.UpdateIdentityResponse:
        gallery = self._galleries.get(request.gallery)
        values = _new_values(request.identity, request.update_mask.paths)
        record = gallery.update_identity(checked_identity_id(request.identity.id), values)
        gallery.store.reached(Step.BEFORE_REPLY)
        return enrolment_pb2.UpdateIdentityResponse(identity=wire_identity(record))

    def DeleteIdentity(
        self, request: enrolment_pb2.DeleteIdentityRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.DeleteIdentityResponse:
        erased = self._galleries.get(request.gallery).delete_identity(checked_identity_id(request.identity_id))
        self._galleries.store.reached(Step.BEFORE_REPLY)
        return enrolment_pb2.DeleteIdentityResponse(
            deleted_template_count=erased.template_count, revision=erased.revision, receipt=erased.receipt
        )

    def DeleteTemplate(
        self, request: enrolment_pb2.DeleteTemplateRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.DeleteTemplateResponse:
        erased = self._galleries.get(request.gallery).delete_template(request.template_id)
        self._galleries.store.reached(Step.BEFORE_REPLY)
        return enrolment_pb2.DeleteTemplateResponse(revision=erased.revision, receipt=erased.receipt)

    def _looked_at(self, request: enrolment_pb2.EnrolRequest, checkpoint: Callable[[], None]) -> Ready:
        check_request_id(request.request_id)
        checkpoint()
        enroller = self._galleries.enroller(self._galleries.get(request.gallery))
        return Ready(enroller, enroller.prepare(_domain_enrol(request), checkpoint=checkpoint))

    def _streamed(self, answer: Answer) -> enrolment_pb2.EnrolStreamResponse:
        if isinstance(answer.outcome, Exception):
            return enrolment_pb2.EnrolStreamResponse(error=request_error(answer.outcome, answer.request_id))
        self._galleries.store.reached(Step.BEFORE_REPLY)
        return enrolment_pb2.EnrolStreamResponse(enrolled=_wire_enrolment(answer.outcome, answer.request_id))


def _light_enough(identities: list[enrolment_pb2.Identity]) -> list[enrolment_pb2.Identity]:
    """As many of them as a page may weigh, at least one."""
    weights = accumulate(each.ByteSize() for each in identities)
    return [each for each, weight in zip(identities, weights, strict=True) if weight <= MAX_PAGE_BYTES] or identities[
        :1
    ]


def request_error(error: Exception, request_id: str) -> enrolment_pb2.RequestError:
    """An error as the answer to one request of a stream."""
    failure = failure_of(error)
    if not is_expected(failure):
        log_unexpected("stream", error)
    return enrolment_pb2.RequestError(
        request_id=request_id, code=failure.number, reason=failure.reason, message=failure.message
    )


def _domain_enrol(request: enrolment_pb2.EnrolRequest) -> Enrol:
    return Enrol(
        details=_domain_details(request.identity),
        items=tuple(_domain_item(each, number) for number, each in enumerate(request.items)),
        request_id=request.request_id,
        several_faces=known_value(SEVERAL_FACES, request.several_faces, "several_faces"),
        duplicate_action=known_value(GUARD_ACTION, request.duplicate_action, "duplicate_action"),
        mislabel_action=known_value(GUARD_ACTION, request.mislabel_action, "mislabel_action"),
    )


def _domain_details(identity: enrolment_pb2.Identity) -> IdentityDetails:
    return IdentityDetails(
        external_id=checked_identity_id(identity.id),
        display_name=checked_text(identity.display_name, "display_name") or None,
        attributes=checked_attributes(dict(identity.attributes)) or None,
        consent_reference=checked_text(identity.consent_reference, "consent_reference") or None,
        purpose=checked_text(identity.purpose, "purpose") or None,
        expires_at=_future_expiry(identity),
    )


def _expiry(identity: enrolment_pb2.Identity) -> datetime | None:
    return domain_time(identity.expire_time) if identity.HasField("expire_time") else None


def _future_expiry(identity: enrolment_pb2.Identity) -> datetime | None:
    expiry = _expiry(identity)
    if expiry is not None and expiry <= datetime.now(UTC):
        raise InvalidArgument("expire_time", "is over already; name a time to come, or delete the identity")
    return expiry


def _domain_item(item: enrolment_pb2.EnrolItem, number: int) -> EnrolItem:
    source = item.WhichOneof("source")
    if source is None:
        raise InvalidArgument(f"items[{number}]", "needs an image or a vector")
    if source == "image":
        return item.image
    return VectorItem(domain_vector(item.vector), item.vector.model_digest)


def _new_values(identity: enrolment_pb2.Identity, paths: Sequence[str]) -> dict[str, Any]:
    unknown = [path for path in paths if path not in UPDATABLE]
    if unknown or not paths:
        raise InvalidArgument("update_mask", f"names what to replace: one or more of {', '.join(UPDATABLE)}")
    values: dict[str, Any] = {
        "display_name": checked_text(identity.display_name, "display_name"),
        "attributes": checked_attributes(dict(identity.attributes)),
        "consent_reference": checked_text(identity.consent_reference, "consent_reference"),
        "purpose": checked_text(identity.purpose, "purpose"),
        "hold_reason": checked_text(identity.hold_reason, "hold_reason"),
        "expires_at": _future_expiry(identity),
    }
    return {UPDATABLE[path]: values[UPDATABLE[path]] for path in paths}


def _wire_enrolment(enrolment: Enrolment, request_id: str) -> enrolment_pb2.EnrolResponse:
    return enrolment_pb2.EnrolResponse(
        identity_id=enrolment.identity_id,
        results=[_wire_result(each) for each in enrolment.results],
        revision=enrolment.revision,
        request_id=request_id,
    )


def _wire_result(result: EnrolResult) -> enrolment_pb2.EnrolResult:
    return enrolment_pb2.EnrolResult(
        outcome=OUTCOMES[result.outcome],
        template_id=result.template_id,
        refusals=[_wire_finding(each) for each in result.refusals],
        warnings=[_wire_finding(each) for each in result.warnings],
        faces=[wire_face(each) for each in result.faces],
    )


def _wire_finding(finding: Finding) -> enrolment_pb2.EnrolFinding:
    return enrolment_pb2.EnrolFinding(
        reason=REASONS[finding.reason],
        message=finding.message,
        other_identity_id=finding.other_identity_id,
        score=finding.score,
    )


def wire_identity(record: IdentityRecord) -> enrolment_pb2.Identity:
    return enrolment_pb2.Identity(
        id=record.external_id,
        display_name=record.display_name,
        attributes=record.attributes,
        consent_reference=record.consent_reference,
        purpose=record.purpose,
        hold_reason=record.hold_reason,
        expire_time=None if record.expires_at is None else wire_time(record.expires_at),
        templates=[_wire_template(each) for each in record.templates],
        create_time=wire_time(record.created_at),
    )


def _wire_template(record: TemplateRecord) -> enrolment_pb2.Template:
    quality = None if record.quality is None else wire_quality(Quality(**record.quality))
    return enrolment_pb2.Template(id=record.id, quality=quality, create_time=wire_time(record.created_at))
