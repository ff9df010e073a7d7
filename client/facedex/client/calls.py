"""Every call of the API: its method on the wire, its request, how its answer is read, and whether it may be repeated.

Nothing here sends anything: `Client` and `AsyncClient` differ only in how they send what is described here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from google.protobuf.message import DecodeError, Message

from facedex.client import answers, requests
from facedex.client.calibration import Certificate, ResolvedThreshold
from facedex.client.consistency import ConsistencyReport
from facedex.client.erasures import ErasureCheck, ErasureRecord
from facedex.client.errors import FacedexError, Failure, MessageTooLargeError, ServerFaultError
from facedex.client.failures import error_of_stream_item
from facedex.client.galleries import Gallery, GalleryErasure, GalleryUpdate, NewGallery
from facedex.client.identification import (
    Detection,
    DetectRequest,
    Identification,
    IdentifyRequest,
    Verification,
    VerifyIdentityRequest,
    VerifyImagesRequest,
)
from facedex.client.identities import Enrolment, EnrolRequest, Erasure, Identity, IdentityUpdate
from facedex.client.jobs import Job, JobFinding
from facedex.client.retry import Repeatable
from facedex.client.servers import ServerInfo
from facedex.client.signatures import call_described_by
from facedex.v1 import (
    calibration_pb2,
    consistency_pb2,
    enrolment_pb2,
    erasure_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Most bytes of one message either way: the server's own default."""

GALLERIES = "/facedex.v1.GalleryService/"
ENROLMENT = "/facedex.v1.EnrolmentService/"
IDENTIFICATION = "/facedex.v1.IdentificationService/"
OPERATIONS = "/facedex.v1.OperationsService/"
ERASURES = "/facedex.v1.ErasureService/"
CALIBRATION = "/facedex.v1.CalibrationService/"

Parameters = ParamSpec("Parameters")
Request = TypeVar("Request")
Answer = TypeVar("Answer")
Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be sent: the payload is within the limit of one message."""

    method: str
    payload: bytes
    read: Callable[[bytes], Answer]
    repeatable: Repeatable


@dataclass(frozen=True, slots=True)
class Page(Generic[Answer]):
    """Some of the items of a list, and the token that asks for the next; empty on the last page."""

    items: tuple[Answer, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one request of a stream was refused. The stream goes on."""

    request_id: str
    error: FacedexError


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[Request, Answer]):
    """A stream of requests that each get one answer, in order."""

    method: str
    write: Callable[[Request], bytes]
    read: Callable[[bytes], Answer | Refusal]
    request_id: Callable[[Request], str]


def _create_gallery(gallery: NewGallery) -> Call[Gallery]:
    request = requests.create_gallery(gallery)
    read = _reader(gallery_pb2.CreateGalleryResponse, lambda reply: answers.gallery(reply.gallery))
    return _call(GALLERIES + "CreateGallery", request, read, Repeatable.IF_UNSEEN)


def get_gallery(name: str) -> Call[Gallery]:
    """Returns one gallery. Raises GalleryNotFoundError."""
    request = gallery_pb2.GetGalleryRequest(name=name)
    read = _reader(gallery_pb2.GetGalleryResponse, lambda reply: answers.gallery(reply.gallery))
    return _call(GALLERIES + "GetGallery", request, read, Repeatable.ALWAYS)


def list_galleries(*, page_size: int = 100, page_token: str = "") -> Call[Page[Gallery]]:
    request = gallery_pb2.ListGalleriesRequest(page_size=page_size, page_token=page_token)

    def page(reply: gallery_pb2.ListGalleriesResponse) -> Page[Gallery]:
        return Page(tuple(answers.gallery(gallery) for gallery in reply.galleries), reply.next_page_token)

    read = _reader(gallery_pb2.ListGalleriesResponse, page)
    return _call(GALLERIES + "ListGalleries", request, read, Repeatable.ALWAYS)


def _update_gallery(update: GalleryUpdate) -> Call[Gallery]:
    request = requests.update_gallery(update)
    read = _reader(gallery_pb2.UpdateGalleryResponse, lambda reply: answers.gallery(reply.gallery))
    return _call(GALLERIES + "UpdateGallery", request, read, Repeatable.ALWAYS)


def delete_gallery(name: str) -> Call[GalleryErasure]:
    """Erases a gallery with everybody in it. Raises GalleryNotFoundError, OnHoldError."""
    request = gallery_pb2.DeleteGalleryRequest(name=name)
    read = _reader(gallery_pb2.DeleteGalleryResponse, answers.gallery_erasure)
    return _call(GALLERIES + "DeleteGallery", request, read, Repeatable.IF_UNSEEN)


def _enrol(enrol: EnrolRequest) -> Call[Enrolment]:
    request = requests.enrol(enrol)
    repeatable = Repeatable.ALWAYS if enrol.request_id else Repeatable.IF_UNSEEN
    return _call(ENROLMENT + "Enrol", request, _reader(enrolment_pb2.EnrolResponse, answers.enrolment), repeatable)


def get_identity(gallery: str, identity: str) -> Call[Identity]:
    """Returns one identity. Raises GalleryNotFoundError, IdentityNotFoundError."""
    request = enrolment_pb2.GetIdentityRequest(gallery=gallery, identity_id=identity)
    read = _reader(enrolment_pb2.GetIdentityResponse, lambda reply: answers.identity(reply.identity))
    return _call(ENROLMENT + "GetIdentity", request, read, Repeatable.ALWAYS)


def list_identities(
    gallery: str, *, filters: Mapping[str, Sequence[str]] | None = None, page_size: int = 100, page_token: str = ""
) -> Call[Page[Identity]]:
    request = enrolment_pb2.ListIdentitiesRequest(
        gallery=gallery,
        filters=requests.attribute_filters(filters or {}),
        page_size=page_size,
        page_token=page_token,
    )

    def page(reply: enrolment_pb2.ListIdentitiesResponse) -> Page[Identity]:
        return Page(tuple(answers.identity(identity) for identity in reply.identities), reply.next_page_token)

    read = _reader(enrolment_pb2.ListIdentitiesResponse, page)
    return _call(ENROLMENT + "ListIdentities", request, read, Repeatable.ALWAYS)


def _update_identity(update: IdentityUpdate) -> Call[Identity]:
    request = requests.update_identity(update)
    read = _reader(enrolment_pb2.UpdateIdentityResponse, lambda reply: answers.identity(reply.identity))
    return _call(ENROLMENT + "UpdateIdentity", request, read, Repeatable.ALWAYS)


def delete_identity(gallery: str, identity: str) -> Call[Erasure]:
    """Erases an identity with all its templates; they are never returned again.

    Raises IdentityNotFoundError, OnHoldError.
    """
    request = enrolment_pb2.DeleteIdentityRequest(gallery=gallery, identity_id=identity)
    read = _reader(enrolment_pb2.DeleteIdentityResponse, answers.erasure)
    return _call(ENROLMENT + "DeleteIdentity", request, read, Repeatable.IF_UNSEEN)


def delete_template(gallery: str, template_id: int) -> Call[Erasure]:
    """Erases one template; the identity stays, even without templates.

    Raises TemplateNotFoundError, OnHoldError.
    """
    request = enrolment_pb2.DeleteTemplateRequest(gallery=gallery, template_id=template_id)
    read = _reader(enrolment_pb2.DeleteTemplateResponse, answers.template_erasure)
    return _call(ENROLMENT + "DeleteTemplate", request, read, Repeatable.IF_UNSEEN)


def list_erasures(*, page_size: int = 100, page_token: str = "") -> Call[Page[ErasureRecord]]:
    request = erasure_pb2.ListErasuresRequest(page_size=page_size, page_token=page_token)

    def page(reply: erasure_pb2.ListErasuresResponse) -> Page[ErasureRecord]:
        return Page(tuple(answers.erasure_record(each) for each in reply.erasures), reply.next_page_token)

    return _call(ERASURES + "ListErasures", request, _reader(erasure_pb2.ListErasuresResponse, page), Repeatable.ALWAYS)


def get_erasure(erasure_id: str) -> Call[ErasureRecord]:
    """Returns one erasure with its receipt. Raises ErasureNotFoundError."""
    request = erasure_pb2.GetErasureRequest(id=erasure_id)
    read = _reader(erasure_pb2.GetErasureResponse, lambda reply: answers.erasure_record(reply.erasure))
    return _call(ERASURES + "GetErasure", request, read, Repeatable.ALWAYS)


def check_erasure(receipt: str) -> Call[ErasureCheck]:
    """Asks whether the server still holds anything of an erasure, now. Raises ReceiptInvalidError."""
    request = erasure_pb2.CheckErasureRequest(receipt=receipt)
    read = _reader(erasure_pb2.CheckErasureResponse, answers.erasure_check)
    return _call(ERASURES + "CheckErasure", request, read, Repeatable.ALWAYS)


def export_identity(gallery: str, identity: str, *, include_vectors: bool = False) -> Call[bytes]:
    """Returns everything that is held about one person, as the bytes of a ZIP file.

    With vectors only where they are asked for: whoever has them can compare the person, and build a face like theirs.
    Raises GalleryNotFoundError, IdentityNotFoundError.
    """
    request = erasure_pb2.ExportIdentityRequest(gallery=gallery, identity_id=identity, include_vectors=include_vectors)
    read = _reader(erasure_pb2.ExportIdentityResponse, lambda reply: reply.archive)
    return _call(ERASURES + "ExportIdentity", request, read, Repeatable.ALWAYS)


def _identify(identify: IdentifyRequest) -> Call[Identification]:
    request = requests.identify(identify)
    read = _reader(identification_pb2.IdentifyResponse, answers.identification)
    return _call(IDENTIFICATION + "Identify", request, read, Repeatable.ALWAYS)


def _verify(verify: VerifyIdentityRequest) -> Call[Verification]:
    return _verification(requests.verify_identity(verify))


def _verify_images(verify: VerifyImagesRequest) -> Call[Verification]:
    return _verification(requests.verify_images(verify))


def _verification(request: identification_pb2.VerifyRequest) -> Call[Verification]:
    read = _reader(identification_pb2.VerifyResponse, answers.verification)
    return _call(IDENTIFICATION + "Verify", request, read, Repeatable.ALWAYS)


def _detect(detect: DetectRequest) -> Call[Detection]:
    request = requests.detect(detect)
    read = _reader(identification_pb2.DetectResponse, answers.detection)
    return _call(IDENTIFICATION + "Detect", request, read, Repeatable.ALWAYS)


def server_info() -> Call[ServerInfo]:
    """Tells the server's version, models and limits."""
    request = operations_pb2.GetServerInfoRequest()
    read = _reader(operations_pb2.GetServerInfoResponse, answers.server_info)
    return _call(OPERATIONS + "GetServerInfo", request, read, Repeatable.ALWAYS)


def check_consistency(gallery: str) -> Call[ConsistencyReport]:
    """Compares a gallery's rows, log and digest with each other and with the index in the server's memory.

    It takes about as long as a start without snapshots: ask with a longer timeout. Raises GalleryNotFoundError, OverloadedError.
    """
    request = consistency_pb2.CheckConsistencyRequest(gallery=gallery)
    read = _reader(consistency_pb2.CheckConsistencyResponse, answers.consistency)
    return _call(OPERATIONS + "CheckConsistency", request, read, Repeatable.ALWAYS)


def calibrate(gallery: str) -> Call[Job]:
    """Calibrates a gallery from itself, as a job. Its certificate is in force when the job is done."""
    request = calibration_pb2.CalibrateRequest(gallery=gallery)
    read = _reader(calibration_pb2.CalibrateResponse, lambda reply: answers.job(reply.job))
    return _call(CALIBRATION + "Calibrate", request, read, Repeatable.IF_UNSEEN)


def get_certificate(gallery: str, *, digest: str = "") -> Call[Certificate]:
    """Returns the certificate in force, or an older one by its digest. Raises NotCalibratedError."""
    request = calibration_pb2.GetCertificateRequest(gallery=gallery, digest=digest)
    read = _reader(calibration_pb2.GetCertificateResponse, lambda reply: answers.certificate(reply.certificate))
    return _call(CALIBRATION + "GetCertificate", request, read, Repeatable.ALWAYS)


def resolve_threshold(gallery: str, *, target_fpir: float, template_count: int = 0) -> Call[ResolvedThreshold]:
    """Tells the threshold that keeps a target; `template_count` 0 takes the gallery's present size.

    Raises NotCalibratedError, PromiseRefusedError.
    """
    request = calibration_pb2.ResolveThresholdRequest(
        gallery=gallery, target_fpir=target_fpir, template_count=template_count
    )
    read = _reader(calibration_pb2.ResolveThresholdResponse, answers.resolved_threshold)
    return _call(CALIBRATION + "ResolveThreshold", request, read, Repeatable.ALWAYS)


def get_job(job_id: int) -> Call[Job]:
    """Tells how far a job is. Raises NotFoundError."""
    request = operations_pb2.GetJobRequest(id=job_id)
    read = _reader(operations_pb2.GetJobResponse, lambda reply: answers.job(reply.job))
    return _call(OPERATIONS + "GetJob", request, read, Repeatable.ALWAYS)


def list_jobs(*, page_size: int = 100, page_token: str = "") -> Call[Page[Job]]:
    request = operations_pb2.ListJobsRequest(page_size=page_size, page_token=page_token)

    def page(reply: operations_pb2.ListJobsResponse) -> Page[Job]:
        return Page(tuple(answers.job(job) for job in reply.jobs), reply.next_page_token)

    return _call(OPERATIONS + "ListJobs", request, _reader(operations_pb2.ListJobsResponse, page), Repeatable.ALWAYS)


def list_job_findings(job_id: int, *, page_token: str = "") -> Call[Page[JobFinding]]:
    request = operations_pb2.ListJobFindingsRequest(id=job_id, page_token=page_token)

    def page(reply: operations_pb2.ListJobFindingsResponse) -> Page[JobFinding]:
        return Page(tuple(answers.job_finding(each) for each in reply.findings), reply.next_page_token)

    read = _reader(operations_pb2.ListJobFindingsResponse, page)
    return _call(OPERATIONS + "ListJobFindings", request, read, Repeatable.ALWAYS)


def cancel_job(job_id: int) -> Call[Job]:
    """Asks a job to stop; one that is done stays done. Raises NotFoundError."""
    request = operations_pb2.CancelJobRequest(id=job_id)
    read = _reader(operations_pb2.CancelJobResponse, lambda reply: answers.job(reply.job))
    return _call(OPERATIONS + "CancelJob", request, read, Repeatable.ALWAYS)


def enrol_stream() -> StreamCall[EnrolRequest, Enrolment]:
    def write(request: EnrolRequest) -> bytes:
        return _payload(enrolment_pb2.EnrolStreamRequest(enrol=requests.enrol(request)))

    def answer(reply: enrolment_pb2.EnrolStreamResponse) -> Enrolment | Refusal:
        return _refusal(reply.error) if reply.HasField("error") else answers.enrolment(reply.enrolled)

    read = _reader(enrolment_pb2.EnrolStreamResponse, answer)
    return StreamCall(ENROLMENT + "EnrolStream", write, read, lambda request: request.request_id)


def identify_stream() -> StreamCall[IdentifyRequest, Identification]:
    def write(request: IdentifyRequest) -> bytes:
        return _payload(identification_pb2.IdentifyStreamRequest(identify=requests.identify(request)))

    def answer(reply: identification_pb2.IdentifyStreamResponse) -> Identification | Refusal:
        return _refusal(reply.error) if reply.HasField("error") else answers.identification(reply.identified)

    read = _reader(identification_pb2.IdentifyStreamResponse, answer)
    return StreamCall(IDENTIFICATION + "IdentifyStream", write, read, lambda request: request.request_id)


def _taking(
    request: Callable[Parameters, Request], call: Callable[[Request], Call[Answer]]
) -> Callable[Parameters, Call[Answer]]:
    """The call with the parameters of its request, which are stated and documented once, at the request."""

    def taking_its_parameters(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Call[Answer]:
        return call(request(*args, **kwargs))

    return call_described_by(request, call, taking_its_parameters)


create_gallery = _taking(NewGallery, _create_gallery)
update_gallery = _taking(GalleryUpdate, _update_gallery)
enrol = _taking(EnrolRequest, _enrol)
update_identity = _taking(IdentityUpdate, _update_identity)
identify = _taking(IdentifyRequest, _identify)
verify = _taking(VerifyIdentityRequest, _verify)
verify_images = _taking(VerifyImagesRequest, _verify_images)
detect = _taking(DetectRequest, _detect)


def _call(method: str, request: Message, read: Callable[[bytes], Answer], repeatable: Repeatable) -> Call[Answer]:
    return Call(method, _payload(request), read, repeatable)


def _payload(request: Message) -> bytes:
    payload = request.SerializeToString()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError(len(payload), MAX_MESSAGE_BYTES)
    return payload


def _reader(reply: type[Reply], value: Callable[[Reply], Answer]) -> Callable[[bytes], Answer]:
    def read(payload: bytes) -> Answer:
        try:
            return value(reply.FromString(payload))
        except DecodeError:
            raise ServerFaultError(Failure("the answer is no facedex message; is this a facedex server?")) from None

    return read


def _refusal(message: enrolment_pb2.RequestError) -> Refusal:
    return Refusal(message.request_id, error_of_stream_item(message))
