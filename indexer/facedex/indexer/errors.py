"""What can go wrong between a photograph and a searchable gallery, and whose fault it is.

    IndexerError
    ├── CallerError                 the request is wrong; the message says how to mend it
    │   ├── InvalidArgument         a field is missing, out of range or malformed
    │   │   └── VectorInvalid       a vector is not a finite unit vector of the gallery's length
    │   ├── NotFound
    │   │   ├── GalleryNotFound
    │   │   ├── IdentityNotFound
    │   │   ├── TemplateNotFound
    │   │   ├── JobNotFound
    │   │   ├── ErasureNotFound
    │   │   └── ApiKeyNotFound
    │   ├── GalleryExists
    │   ├── WrongModel              a vector of another model than the gallery's
    │   ├── MalformedMessage        bytes that are no message of the kind that is expected
    │   ├── RequestIdReused         one request id for two different requests
    │   ├── OnHold                  nobody may erase it
    │   │   ├── IdentityOnHold
    │   │   └── GalleryOnHold
    │   ├── ReceiptInvalid          a receipt of an erasure is not genuine
    │   ├── NoFace                  the photograph shows nobody
    │   ├── SeveralFacesFound       the photograph shows several people and the caller did not choose
    │   └── DeadlinePassed          the caller no longer waits
    └── ServiceError                the caller did nothing wrong
        ├── ModelMissing            a gallery's model is not loaded in this process
        ├── DeviceUnusable          the device that was asked for is missing, or does not compute
        ├── DataFolderUnusable      the data folder cannot be made
        ├── EngineUnusable          the engine that is to look at photographs is missing, or cannot be reached
        ├── EngineFailed            its workers cannot look, or all of them are gone
        ├── StoreUnavailable        the database cannot be reached, is full, or is read-only
        ├── DataKeysMissing         people are encrypted, and the key store is not given or is another one
        ├── DataKeysMisplaced       keys beside the data would be in the same backup
        ├── DataKeyMissing          one identity's key is destroyed
        ├── DataKeysReplaced        what was read at one moment has other keys by now
        ├── TemplateSecretMissing   vectors are transformed, and the secret was not given
        ├── TemplateSecretWrong     the secret given is another one
        ├── TemplateSecretInvalid   the file given is no secret, or lies beside what it protects
        ├── EngineMissing           the library for a vector engine is not installed
        ├── EngineUnavailable       the vector engine cannot be reached, or fails
        ├── AuditNotWhole           pruning the audit would hide what is wrong with it
        ├── SealBroken              what is stored of a face was changed, or belongs elsewhere
        ├── TemplateAltered         a stored vector is not the one that was enrolled
        ├── DatabaseUnsupported     the address is none of a database that is supported here
        └── DatabaseTooNew          a newer version of facedex has changed the tables

Errors about photographs and model files are in `facedex.indexer.vision.errors`, errors between scores and a promise in
`facedex.indexer.calibration.errors`, errors about archives in `facedex.indexer.archive.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.vision.face import Face


class IndexerError(Exception):
    """Base of every error that this package raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"


class CallerError(IndexerError):
    """The request is wrong, and the caller can mend it."""


class InvalidArgument(CallerError):
    """A field of the request is missing, out of range or malformed."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class VectorInvalid(InvalidArgument):
    """A vector is not a finite unit vector of the gallery's length."""

    reason = "VECTOR_INVALID"


class MalformedMessage(CallerError):
    """The bytes are no message of the kind that is expected."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self) -> None:
        super().__init__(
            "the bytes are no message of this method; use stubs that were generated from this server's .proto"
        )


class NotFound(CallerError):
    """What the request names does not exist."""


class GalleryNotFound(NotFound):
    """There is no gallery of that name."""

    reason = "GALLERY_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no gallery {name!r}; create it first, or list the galleries for the right name")
        self.name = name


class IdentityNotFound(NotFound):
    """The gallery has no identity of that id."""

    reason = "IDENTITY_NOT_FOUND"

    def __init__(self, gallery: str) -> None:
        super().__init__(f"gallery {gallery!r} has no identity of that id; it was never enrolled, or is erased")
        self.gallery = gallery


class TemplateNotFound(NotFound):
    """The gallery has no template of that number."""

    reason = "TEMPLATE_NOT_FOUND"

    def __init__(self, gallery: str, template_id: int) -> None:
        super().__init__(f"gallery {gallery!r} has no template {template_id}; it was never enrolled, or is erased")
        self.gallery = gallery
        self.template_id = template_id


class JobNotFound(NotFound):
    """There is no job of that number."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"there is no job {job_id}; list the jobs for the right number")
        self.job_id = job_id


class JobTaken(IndexerError):
    """Another process works on the job, or somebody cancelled it."""

    reason = "JOB_TAKEN"

    def __init__(self, job_id: int) -> None:
        super().__init__(
            f"job {job_id} is another process's now, or was cancelled: facedex jobs shows what became of it"
        )
        self.job_id = job_id


class ErasureNotFound(NotFound):
    """There was no erasure of that id."""

    reason = "ERASURE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no erasure of that id here; list the erasures, or ask the server that erased")


class ApiKeyNotFound(NotFound):
    """There is no API key of that id."""

    reason = "API_KEY_NOT_FOUND"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id!r}; facedex-index keys list shows the ids")
        self.key_id = key_id


class OnHold(CallerError):
    """A legal hold forbids to erase."""

    reason = "ON_HOLD"


class IdentityOnHold(OnHold):
    """Nobody may erase this identity."""

    def __init__(self, gallery: str, hold_reason: str) -> None:
        super().__init__(
            f"the identity in gallery {gallery!r} is on legal hold ({hold_reason}); when the hold is over, clear its "
            "hold_reason (facedex identities update --clear-hold), then erase it"
        )
        self.gallery = gallery
        self.hold_reason = hold_reason


class GalleryOnHold(OnHold):
    """Somebody in the gallery may not be erased, so it cannot go as a whole."""

    def __init__(self, gallery: str, count: int) -> None:
        super().__init__(
            f"{count} identities of gallery {gallery!r} are on legal hold; clear their hold_reason when the holds are "
            "over, then delete the gallery"
        )
        self.gallery = gallery
        self.count = count


class ReceiptInvalid(CallerError):
    """A receipt of an erasure is not genuine."""

    reason = "RECEIPT_INVALID"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the receipt cannot be relied on: {problem}")
        self.problem = problem


class GalleryExists(CallerError):
    """The name is taken."""

    reason = "GALLERY_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a gallery {name!r} already; use it, or choose another name")
        self.name = name


class WrongModel(CallerError):
    """A vector was made by another model than the gallery's, so cosines between them mean nothing."""

    reason = "WRONG_MODEL"

    def __init__(self, *, expected: str, received: str) -> None:
        super().__init__(
            f"the vector was made by model {received[:12] or '(not named)'}…, the gallery holds model {expected[:12]}…; "
            "embed the photograph again with the gallery's model, or send the photograph itself"
        )
        self.expected = expected
        self.received = received


class SuccessionExists(CallerError):
    """A gallery changes its model already."""

    reason = "SUCCESSION_EXISTS"

    def __init__(self) -> None:
        super().__init__("the gallery is changing its model already; finish that, or abandon it")


class NoSuccession(CallerError):
    """A gallery does not change its model."""

    reason = "NO_SUCCESSION"

    def __init__(self, gallery: str) -> None:
        super().__init__(f"gallery {gallery!r} is not changing its model; begin with: facedex-index migrate begin")


class ModelChanged(CallerError):
    """A gallery got another model between embedding and writing; nothing was written."""

    reason = "MODEL_CHANGED"

    def __init__(self, gallery: str) -> None:
        super().__init__(f"gallery {gallery!r} changed its model meanwhile, and nothing was kept; do the same again")


class SuccessionIncomplete(CallerError):
    """A change of model cannot be finished yet."""

    reason = "SUCCESSION_INCOMPLETE"

    def __init__(self, *, is_in_force: bool, missing: int) -> None:
        super().__init__(
            f"{missing} templates have no vector of the new model: embed them, or enrol those people again"
            if is_in_force
            else "the new model is not in force: cut over first"
        )


class SuccessionTooSmall(CallerError):
    """Too few people have vectors of both models to compare the models' scores."""

    reason = "SUCCESSION_TOO_SMALL"

    def __init__(self, *, identities: int, needed: int) -> None:
        super().__init__(
            f"{identities} people have vectors of both models, {needed} are needed to put their scores on one scale: "
            "embed more of them, or all"
        )


class RequestIdReused(CallerError):
    """One request id was used for two different requests."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self) -> None:
        super().__init__("this request id was used for a different request; make a new id for each request")


class NoFace(CallerError):
    """The photograph shows nobody."""

    reason = "NO_FACE"

    def __init__(self) -> None:
        super().__init__("no face was found on the photograph; the smallest face that is found is about 20 pixels wide")


class SeveralFacesFound(CallerError):
    """The photograph shows several people, and the caller did not say which one is meant."""

    reason = "SEVERAL_FACES"

    def __init__(self, faces: tuple[Face, ...]) -> None:
        boxes = ", ".join(f"({f.box.x:.0f}, {f.box.y:.0f}, {f.box.width:.0f}×{f.box.height:.0f})" for f in faces)
        super().__init__(f"{len(faces)} faces were found, at {boxes}; crop to one of them, or ask for the largest")
        self.faces = faces


class DeadlinePassed(CallerError):
    """The caller no longer waits, so the work was stopped."""

    reason = "DEADLINE_PASSED"

    def __init__(self) -> None:
        super().__init__("the request's deadline passed, or it was cancelled, before the work was done")


class ServiceError(IndexerError):
    """The caller did nothing wrong; an operator has to look."""


class ModelMissing(ServiceError):
    """A gallery's templates were made by a model that is not loaded in this process."""

    reason = "MODEL_MISSING"

    def __init__(self, *, gallery: str, model_name: str, model_digest: str, loaded: str) -> None:
        super().__init__(
            f"gallery {gallery!r} was made with model {model_name!r} ({model_digest[:12]}…), but {loaded!r} is loaded; "
            f"add that model with 'facedex-index models add' and start the server with --embedder {model_name}"
        )
        self.gallery = gallery
        self.model_digest = model_digest


class DeviceUnusable(ServiceError):
    """The device that was asked for cannot be used; `problem` says why. Nothing is done elsewhere instead."""

    reason = "DEVICE_UNUSABLE"

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"no GPU can be used: {problem}; {advice}, or choose --device cpu")
        self.problem = problem
        self.advice = advice


class DataFolderUnusable(ServiceError):
    """The data folder is not there and cannot be made."""

    reason = "DATA_FOLDER_UNUSABLE"

    def __init__(self, folder: Path, cause: str) -> None:
        super().__init__(f"the data folder {folder} cannot be made ({cause}); name another one with --data")


class EngineUnusable(ServiceError):
    """The engine that is to look at photographs is not installed, cannot be reached, or has nothing to work with."""

    reason = "ENGINE_UNUSABLE"


class EngineFailed(ServiceError):
    """The engine's workers cannot look at a photograph, or none of them is left. What is enrolled stays."""

    reason = "ENGINE_FAILED"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the engine's workers: {problem}; run the same command again to go on")
        self.problem = problem


class StoreUnavailable(ServiceError):
    """The database cannot be reached, is full, or is read-only.

    `cause` is the driver's own sentence, for the operator. Callers get `told_to_callers`: the sentence up to its first
    colon, after which drivers name hosts, users and values.
    """

    reason = "STORE_UNAVAILABLE"

    def __init__(self, cause: str) -> None:
        super().__init__(f"the database refused the operation ({cause})")
        self.cause = cause

    @property
    def told_to_callers(self) -> str:
        return (
            f"the database refused the operation ({self.cause.partition(':')[0]}); repeat the request, "
            "with the same request id where it has one"
        )


class DataKeysMissing(ServiceError):
    """People are encrypted, and their keys are not where this process was told to look."""

    reason = "DATA_KEYS_MISSING"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; give --data-keys (FACEDEX_DATA_KEYS) the place where this installation's keys are"
        )


class DataKeysMisplaced(ServiceError):
    """Keys beside the data would be in the same backup."""

    reason = "DATA_KEYS_MISPLACED"

    def __init__(self) -> None:
        super().__init__(
            "data keys may not lie in the data folder, since a backup of it would hold the keys too; "
            "give --data-keys another folder, or a postgresql:// address"
        )


class DataKeyMissing(ServiceError):
    """The key of one identity is destroyed or lost, so that nothing can be read or added."""

    reason = "DATA_KEY_MISSING"

    def __init__(self) -> None:
        super().__init__(
            "the identity's data key is gone, so its templates cannot be read; delete the identity, and enrol it anew"
        )


class DataKeysReplaced(ServiceError):
    """Rows were being read as they were at one moment, and the keys that they had then were replaced and destroyed."""

    reason = "DATA_KEYS_REPLACED"

    def __init__(self) -> None:
        super().__init__("data keys were replaced and retired while the store was read; run it again")


class TemplateSecretMissing(ServiceError):
    """Vectors are transformed, or are to be, and the secret that this needs was not given."""

    reason = "TEMPLATE_SECRET_MISSING"

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}: give --template-secret (FACEDEX_TEMPLATE_SECRET) the file with it")


class TemplateSecretWrong(ServiceError):
    """The secret given is not that with which vectors were transformed."""

    reason = "TEMPLATE_SECRET_WRONG"

    def __init__(self) -> None:
        super().__init__(
            "the template secret is not the one with which vectors were transformed; "
            "give --template-secret the file of before"
        )


class TemplateSecretInvalid(ServiceError):
    """The file is no template secret, or lies where it does not protect."""

    reason = "TEMPLATE_SECRET_INVALID"

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"template secret {file} {problem}")


class AuditNotWhole(ServiceError):
    """The audit shows that somebody meddled with it, and what is to be pruned may be what shows it."""

    reason = "AUDIT_NOT_WHOLE"

    def __init__(self, fault: str, number: int) -> None:
        super().__init__(
            f"nothing was pruned, for the audit is not whole: {fault} at entry {number}; see 'facedex-index audit verify'"
        )
        self.fault = fault
        self.number = number


class SealBroken(ServiceError):
    """What is stored of a face cannot be opened with its identity's key."""

    reason = "SEAL_BROKEN"

    def __init__(self) -> None:
        super().__init__("a stored vector or crop was changed, or belongs to another template; restore a backup")


class TemplateAltered(ServiceError):
    """What is stored of a face is not what was enrolled, so it is handed to nobody."""

    reason = "TEMPLATE_ALTERED"

    def __init__(self, template_id: int) -> None:
        super().__init__(
            f"template {template_id} in the database is not what was enrolled; facedex-index fsck names all that differ, "
            "and what mends them"
        )
        self.template_id = template_id


class EngineMissing(ServiceError):
    """The library for the vector engine is not installed."""

    reason = "ENGINE_MISSING"

    def __init__(self) -> None:
        super().__init__("pymilvus is not installed: pip install 'facedex[milvus]'")


class EngineUnavailable(ServiceError):
    """The vector engine cannot be reached, or does not do what it was asked for.

    `cause` is the engine's own sentence, for the operator; callers get `told_to_callers`.
    """

    reason = "ENGINE_UNAVAILABLE"
    told_to_callers: ClassVar[str] = "the vector engine does not answer as it should; try again later"

    def __init__(self, cause: str) -> None:
        super().__init__(f"the vector engine does not answer as it should: {cause}")
        self.cause = cause


class DatabaseUnsupported(ServiceError):
    """The address is none of a database that is supported here. The message never repeats it: it may hold a password."""

    reason = "DATABASE_UNSUPPORTED"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the database's address cannot be used ({problem}); give postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "or none for a SQLite file in the data folder"
        )
        self.problem = problem


class DatabaseTooNew(ServiceError):
    """A newer version of facedex has changed the tables; this one leaves them alone."""

    reason = "DATABASE_TOO_NEW"

    def __init__(self) -> None:
        super().__init__(
            "the database was changed by a newer version of facedex; start that version, or restore a backup"
        )
