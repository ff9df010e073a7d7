"""From a domain error to a gRPC status, with google.rpc details; never a stack trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from facedex.indexer import errors
from facedex.indexer.calibration.errors import CalibrationError, ScoresInvalid
from facedex.indexer.vision import errors as vision_errors
from facedex.server.access import NotAllowed, NotKnown
from facedex.server.admission import Overloaded, Stopping
from facedex.server.audit_writer import AuditUnavailable
from facedex.server.meter import TooOften
from facedex.server.readiness import Loading

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "facedex"
MAX_MESSAGE_CHARACTERS = 500

# The first class that fits decides.
CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.GalleryExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.OnHold, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NoFace, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.SeveralFacesFound, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WrongModel, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ModelChanged, grpc.StatusCode.ABORTED),
    (errors.JobTaken, grpc.StatusCode.ABORTED),
    (errors.ModelMissing, grpc.StatusCode.FAILED_PRECONDITION),
    (ScoresInvalid, grpc.StatusCode.INVALID_ARGUMENT),
    (CalibrationError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StoreUnavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.EngineUnavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.CallerError, grpc.StatusCode.INVALID_ARGUMENT),
    (vision_errors.ImageRefused, grpc.StatusCode.INVALID_ARGUMENT),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TooOften, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotKnown, grpc.StatusCode.UNAUTHENTICATED),
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (Stopping, grpc.StatusCode.UNAVAILABLE),
    (Loading, grpc.StatusCode.UNAVAILABLE),
    (AuditUnavailable, grpc.StatusCode.UNAVAILABLE),
)
UNEXPECTED = "the server failed in a way that it should not; its log has the details under this request's time"


@dataclass(frozen=True, slots=True)
class Failure:
    """What the caller is told: a canonical code, a reason for programs, a message for people, and details."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: tuple[Message, ...] = ()

    @property
    def number(self) -> int:
        """The code as in google.rpc.Code."""
        return int(self.code.value[0])

    def status(self) -> status_pb2.Status:
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)
        # The message travels twice, in headers of 8 KiB at most.
        message = self.message[:MAX_MESSAGE_CHARACTERS]
        return status_pb2.Status(
            code=self.number, message=message, details=[_packed(each) for each in (info, *self.details)]
        )


def failure_of(error: Exception) -> Failure:
    """What to tell the caller about an error."""
    for kind, code in CODES:
        if isinstance(error, kind):
            return Failure(code, _reason(error), _message(error), _details(error))
    return Failure(grpc.StatusCode.INTERNAL, "INTERNAL", UNEXPECTED)


def is_expected(failure: Failure) -> bool:
    """Whether the error was raised on purpose."""
    return failure.code is not grpc.StatusCode.INTERNAL


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "UNKNOWN"))


def _message(error: Exception) -> str:
    if isinstance(error, errors.StoreUnavailable | errors.EngineUnavailable):
        return error.told_to_callers
    return str(error)


def _details(error: Exception) -> tuple[Message, ...]:
    if isinstance(error, errors.InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.problem)
        return (error_details_pb2.BadRequest(field_violations=[violation]),)
    if isinstance(error, Overloaded | TooOften | Loading | AuditUnavailable):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        return (retry,)
    return ()


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
