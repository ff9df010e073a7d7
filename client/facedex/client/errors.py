"""What can go wrong, by whose fault it is.

FacedexError
├── RequestError                 the caller asked for something that cannot be done: change the request
│   ├── InvalidRequestError      a field has a wrong value; `violations` names it
│   │   ├── UnreadableImageError     the bytes are no picture that the server reads
│   │   ├── InvalidVectorError       a vector is not finite, not of unit length, or of the wrong length
│   │   ├── WrongModelError          a vector was made by another model than the gallery's
│   │   └── MessageTooLargeError     the request is over the limit of one message; it was not sent
│   ├── ReceiptInvalidError      a receipt of an erasure is not genuine
│   ├── PublicKeyInvalidError    what was named as the key of a receipt is no public key
│   ├── UncheckableReceiptError  the package that checks signatures is not installed
│   ├── InvalidTargetError       the address of the server is not written as HOST:PORT
│   ├── InvalidKeyError          an API key is not written as one
│   ├── InvalidCertificateError  a certificate or a private key is not written as one
│   ├── UnencryptedKeyError      an API key would be sent unencrypted to another machine; it was not sent
│   ├── NoFaceError              no face was found on a photograph that needs one
│   ├── SeveralFacesError        several faces were found on a photograph that may show only one
│   ├── NotFoundError            what was asked for is not there
│   │   ├── GalleryNotFoundError
│   │   ├── IdentityNotFoundError
│   │   ├── TemplateNotFoundError
│   │   └── ErasureNotFoundError
│   ├── AlreadyExistsError       what was to be created is there already
│   │   └── GalleryExistsError
│   ├── ConflictError            the state of the gallery does not allow it now
│   │   ├── NotCalibratedError       a target FPIR is asked, and there is no certificate that fits
│   │   ├── OnHoldError              a legal hold forbids to erase
│   │   └── PromiseRefusedError      the gallery's certificate does not carry the target
│   └── AccessError              the server does not let this caller do it
└── ServiceError                 the server or the network failed: the same request may work later
    ├── UnavailableError         no server answers at the target
    ├── OverloadedError          the server refused it unseen; try again after `retry_after_seconds`
    ├── DeadlineError            no answer came within the timeout
    ├── CallCancelledError       the call was cancelled, for instance by a server that stops
    └── ServerFaultError         the server failed inside, or does not know this call
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that has a wrong value."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed call.

    `code` is the canonical name of the status, for instance NOT_FOUND; `reason` the server's own word, for instance
    GALLERY_NOT_FOUND, with its details in `metadata`. Both are for programs; `message` is for people.
    """

    message: str
    code: str = "UNKNOWN"
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    violations: tuple[FieldViolation, ...] = ()
    retry_after_seconds: float | None = None


class FacedexError(Exception):
    """Base of all errors of this package; the text says what happened and what to do."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return "; ".join([self.failure.message, *(f"{v.field}: {v.description}" for v in self._unspoken_violations)])

    @property
    def code(self) -> str:
        return self.failure.code

    @property
    def reason(self) -> str:
        return self.failure.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.failure.metadata

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        return self.failure.violations

    @property
    def retry_after_seconds(self) -> float | None:
        return self.failure.retry_after_seconds

    @property
    def _unspoken_violations(self) -> list[FieldViolation]:
        return [violation for violation in self.violations if violation.description not in self.failure.message]


class RequestError(FacedexError):
    """The caller asked for something that cannot be done: change the request."""


class InvalidRequestError(RequestError):
    """A field has a wrong value; `violations` names it."""


class UnreadableImageError(InvalidRequestError):
    """The bytes are no picture that the server reads."""


class InvalidVectorError(InvalidRequestError):
    """A vector is not finite, not of unit length, or of the wrong length."""


class WrongModelError(InvalidRequestError):
    """A vector was made by another model than the gallery's."""


class MessageTooLargeError(InvalidRequestError):
    """The request has more bytes than one message may have; it was not sent."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        sizes = f"the request has {size_bytes:,} bytes, one message at most {limit_bytes:,}"
        message = f"{sizes}; send fewer or smaller photographs"
        super().__init__(Failure(message, code="RESOURCE_EXHAUSTED", reason="MESSAGE_TOO_LARGE"))
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class ReceiptInvalidError(RequestError):
    """A receipt of an erasure is not genuine: it was changed, or somebody else signed it."""


class PublicKeyInvalidError(RequestError):
    """What was named as the public key of an installation is none."""

    def __init__(self) -> None:
        message = (
            "what was named as the public key is none: it has 64 hexadecimal digits, as `facedex verify-erasure --offline` "
            "prints them of a receipt that came straight from the installation"
        )
        super().__init__(Failure(message, code="INVALID_ARGUMENT", reason="PUBLIC_KEY_INVALID"))


class UncheckableReceiptError(RequestError):
    """The package that checks signatures is not installed here."""

    def __init__(self) -> None:
        message = "receipts are checked with the package cryptography: pip install 'facedex[receipts]'"
        super().__init__(Failure(message, code="UNIMPLEMENTED", reason="PACKAGE_MISSING"))


class InvalidTargetError(RequestError):
    """The address of the server is not written as HOST:PORT."""

    def __init__(self, target: str) -> None:
        message = (
            f"{target!r} is no address of a server; write it as HOST:PORT, for instance localhost:50051, or several as "
            "ipv4:ADDRESS:PORT,ADDRESS:PORT"
        )
        super().__init__(Failure(message, code="INVALID_ARGUMENT", reason="TARGET_INVALID"))
        self.target = target


class InvalidKeyError(RequestError):
    """An API key is not written as one; it was not sent."""

    def __init__(self) -> None:
        message = (
            "the API key is empty, or holds spaces or lines: give the one line that facedex-index keys create printed"
        )
        super().__init__(Failure(message, code="UNAUTHENTICATED", reason="KEY_INVALID"))


class InvalidCertificateError(RequestError):
    """A certificate or a private key is not written as one."""

    def __init__(self) -> None:
        message = "a certificate or private key of this connection is none in PEM form"
        super().__init__(Failure(message, code="INVALID_ARGUMENT", reason="CERTIFICATE_INVALID"))


class UnencryptedKeyError(RequestError):
    """An API key would be sent unencrypted to another machine; it was not sent."""

    def __init__(self, target: str) -> None:
        message = (
            f"the API key would go to {target} unencrypted: give the certificate of its authority (--ca), or, where "
            "something else encrypts, say so (--unencrypted-key)"
        )
        super().__init__(Failure(message, code="UNAUTHENTICATED", reason="KEY_UNENCRYPTED"))
        self.target = target


class NoFaceError(RequestError):
    """No face was found on a photograph that needs one."""


class SeveralFacesError(RequestError):
    """Several faces were found on a photograph that may show only one."""


class NotFoundError(RequestError):
    """What was asked for is not there."""


class GalleryNotFoundError(NotFoundError):
    """There is no gallery of that name."""


class IdentityNotFoundError(NotFoundError):
    """The gallery has no identity of that id."""


class TemplateNotFoundError(NotFoundError):
    """The gallery has no template of that number."""


class ErasureNotFoundError(NotFoundError):
    """There was no erasure of that id."""


class AlreadyExistsError(RequestError):
    """What was to be created is there already."""


class GalleryExistsError(AlreadyExistsError):
    """There is a gallery of that name."""


class ConflictError(RequestError):
    """The state of the gallery does not allow it now."""


class OnHoldError(ConflictError):
    """A legal hold forbids to erase; the text says why there is one."""


class NotCalibratedError(ConflictError):
    """A target FPIR is asked of a gallery that has no certificate, or none that fits."""


class PromiseRefusedError(ConflictError):
    """The gallery's certificate does not carry the target; the text says how many more identities would."""


class AccessError(RequestError):
    """The server does not let this caller do it."""


class ServiceError(FacedexError):
    """The server or the network failed: the same request may work later."""


class UnavailableError(ServiceError):
    """No server answers at the target."""


class OverloadedError(ServiceError):
    """The server refused the request unseen, because it has too many; try again after `retry_after_seconds`."""


class DeadlineError(ServiceError):
    """No answer came within the timeout. A change may have been made nevertheless."""


class CallCancelledError(ServiceError):
    """The call was cancelled, for instance by a server that stops."""


class ServerFaultError(ServiceError):
    """The server failed inside, or does not know this call."""
