"""From a failed call to the error that is raised, by one table: the server's reason first, else the status code."""

from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from facedex.client import errors
from facedex.client.errors import FacedexError, Failure, FieldViolation
from facedex.v1 import enrolment_pb2

_ERROR_BY_REASON: dict[str, type[FacedexError]] = {
    "GALLERY_NOT_FOUND": errors.GalleryNotFoundError,
    "GALLERY_EXISTS": errors.GalleryExistsError,
    "IDENTITY_NOT_FOUND": errors.IdentityNotFoundError,
    "TEMPLATE_NOT_FOUND": errors.TemplateNotFoundError,
    "ERASURE_NOT_FOUND": errors.ErasureNotFoundError,
    "ON_HOLD": errors.OnHoldError,
    "RECEIPT_INVALID": errors.ReceiptInvalidError,
    "NO_FACE": errors.NoFaceError,
    "SEVERAL_FACES": errors.SeveralFacesError,
    "VECTOR_INVALID": errors.InvalidVectorError,
    "WRONG_MODEL": errors.WrongModelError,
    "NOT_CALIBRATED": errors.NotCalibratedError,
    "CERTIFICATE_UNFIT": errors.NotCalibratedError,
    "PROMISE_REFUSED": errors.PromiseRefusedError,
    "OVERLOADED": errors.OverloadedError,
}

_ERROR_BY_CODE: dict[str, type[FacedexError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "OUT_OF_RANGE": errors.InvalidRequestError,
    "RESOURCE_EXHAUSTED": errors.InvalidRequestError,
    "NOT_FOUND": errors.NotFoundError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "FAILED_PRECONDITION": errors.ConflictError,
    "ABORTED": errors.ConflictError,
    "PERMISSION_DENIED": errors.AccessError,
    "UNAUTHENTICATED": errors.AccessError,
    "UNAVAILABLE": errors.UnavailableError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
    "CANCELLED": errors.CallCancelledError,
}


def error_of_call(rpc: grpc.RpcError, *, target: str) -> FacedexError:
    """The error that tells what became of a call that gRPC ended."""
    ended = cast("grpc.Call", rpc)  # what gRPC raises has the attributes of a call, blocking or not
    code, text = ended.code().name, ended.details() or ""
    return _error(_with_details(Failure(_spoken(code, text, target=target), code=code), ended))


def error_of_stream_item(refusal: enrolment_pb2.RequestError) -> FacedexError:
    """The error that tells why one request of a stream was refused."""
    names = {status.value[0]: status.name for status in grpc.StatusCode}
    return _error(Failure(refusal.message, code=names.get(refusal.code, "UNKNOWN"), reason=refusal.reason))


def _error(failure: Failure) -> FacedexError:
    return _error_class(failure)(failure)


def _error_class(failure: Failure) -> type[FacedexError]:
    if failure.reason in _ERROR_BY_REASON:
        return _ERROR_BY_REASON[failure.reason]
    if failure.reason.startswith("IMAGE_"):
        return errors.UnreadableImageError
    if failure.code == "RESOURCE_EXHAUSTED" and failure.retry_after_seconds is not None:
        return errors.OverloadedError
    return _ERROR_BY_CODE.get(failure.code, errors.ServerFaultError)


def _spoken(code: str, text: str, *, target: str) -> str:
    """What gRPC itself says of a call without an answer names sockets; a person needs the target."""
    if code == "UNAVAILABLE":
        cause = text.rpartition(": ")[2].strip("[] ")
        return f"no facedex server answers at {target}; is it running there? ({cause})"
    if code == "DEADLINE_EXCEEDED":
        return f"no answer from {target} in time; allow more, or ask for less at once"
    return text or f"{target} answered {code}"


def _with_details(failure: Failure, rpc: grpc.Call) -> Failure:
    """The failure with what the server tells in google.rpc details; as it is where it tells nothing."""
    try:
        status = rpc_status.from_call(rpc)
    except ValueError:
        return failure  # the details contradict the status: something between us and the server meddled
    if status is None:
        return failure
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    told = [any(detail.Unpack(kind) for detail in status.details) for kind in (info, bad_request, retry)]
    return Failure(
        message=status.message,
        code=failure.code,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=tuple(FieldViolation(v.field, v.description) for v in bad_request.field_violations),
        retry_after_seconds=retry.retry_delay.ToTimedelta().total_seconds() if told[2] else None,
    )
