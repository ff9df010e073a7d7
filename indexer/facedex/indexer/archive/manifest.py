"""What an archive says of itself: `manifest.json`, its last member."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from facedex.indexer.archive.errors import ArchiveDamaged, ArchiveForeign, ArchiveTooNew
from facedex.indexer.store.records import ModelRecord
from facedex.indexer.store.tombstones import moment_text

if TYPE_CHECKING:
    from facedex.indexer.store.records import GalleryRecord

NAME = "manifest.json"
FORMAT = "facedex archive"
VERSION = 1


class Kind(enum.Enum):
    """What an archive holds."""

    GALLERY = "gallery"
    PERSON = "person"
    """One person of a gallery, also in words for that person."""
    ERASURES = "erasures"
    """Who was erased, and nobody else."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. `rows` is 0 where it holds none; `sha256` hexadecimal."""

    name: str
    rows: int
    size_bytes: int
    sha256: str

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Member:
        member = cls(**document)
        _check_types(member, str, "name", "sha256")
        _check_types(member, int, "rows", "size_bytes")
        return member


@dataclass(frozen=True, slots=True)
class Origin:
    """The gallery that an archive was made of, as it was then; `policy` is empty in one person's archive."""

    name: str
    number: int
    created_at: datetime
    revision: int
    policy: dict[str, Any]
    model: ModelRecord

    @classmethod
    def of(cls, record: GalleryRecord, *, policy: dict[str, Any]) -> Origin:
        return cls(record.name, record.id, record.created_at, record.revision, policy, record.model)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "created_at": moment_text(self.created_at)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Origin:
        model = ModelRecord(**document["model"])
        _check_types(model, str, "digest", "name", "licence", "threshold_basis")
        _check_types(model, int, "dimension")
        _check_threshold(model.default_threshold)
        values: dict[str, Any] = {
            **document,
            "model": model,
            "created_at": _moment(document["created_at"]),
        }
        origin = cls(**values)
        _check_types(origin, str, "name")
        _check_types(origin, int, "number", "revision")
        _check_types(origin, dict, "policy")
        return origin


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is known before a row is read. `store_id` names the installation, `made_at` the moment shown.

    counts: identities, templates, crops, certificates, erasures; `unreadable` people, whose keys are destroyed, are not
    in the archive.
    """

    kind: Kind
    store_id: str
    made_at: datetime
    software: str
    origin: Origin | None
    counts: dict[str, int]
    members: tuple[Member, ...]

    def to_bytes(self) -> bytes:
        document = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind.value,
            "store": self.store_id,
            "made_at": moment_text(self.made_at),
            "software": self.software,
            "gallery": None if self.origin is None else self.origin.to_json(),
            "counts": self.counts,
            "members": [asdict(each) for each in self.members],
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Raises ArchiveForeign, ArchiveTooNew, ArchiveDamaged."""
        document = _document(content)
        try:
            return cls(
                kind=Kind(document["kind"]),
                store_id=str(document["store"]),
                made_at=_moment(document["made_at"]),
                software=str(document["software"]),
                origin=None if document["gallery"] is None else Origin.from_json(document["gallery"]),
                counts={str(name): int(count) for name, count in document["counts"].items()},
                members=tuple(Member.from_json(each) for each in document["members"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ArchiveDamaged(f"{NAME} is not as facedex writes it") from None


def _document(content: bytes) -> dict[str, Any]:
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise ArchiveDamaged(f"{NAME} cannot be read") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ArchiveForeign(f"its {NAME} is another program's")
    if document.get("version") != VERSION:
        raise ArchiveTooNew(document.get("version"))
    return document


def _check_types(value: object, kind: type, *fields: str) -> None:
    """Raises TypeError."""
    wrong = [each for each in fields if not isinstance(getattr(value, each), kind)]
    if wrong:
        raise TypeError(wrong[0])


def _moment(text: str) -> datetime:
    """Raises ValueError where it does not say of which time zone."""
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(text)
    return moment


def _check_threshold(threshold: object) -> None:
    """Raises TypeError, ValueError where it is no cosine."""
    if threshold is None:
        return
    if not isinstance(threshold, int | float):
        raise TypeError(threshold)
    if not -1 <= threshold <= 1:
        raise ValueError(threshold)
