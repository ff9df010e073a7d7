"""What stays of somebody who was erased: numbers and keyed hashes, nothing about the person in the clear."""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


class ErasureScope(enum.Enum):
    """What was erased as one."""

    IDENTITY = "identity"
    TEMPLATE = "template"
    GALLERY = "gallery"


class ErasureReason(enum.Enum):
    """Why it was erased."""

    REQUESTED = "requested"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One erasure. It outlives what it tells of, and tells it again from a newcomer with the same number.

    After an older backup was restored, row numbers are given away a second time: only number and `born_at` together, when
    the identity, template or gallery was made, name one thing for ever.
    """

    erasure_id: str
    store_id: str
    scope: ErasureScope
    reason: ErasureReason
    gallery: str
    gallery_id: int
    revision: int
    erased_at: datetime
    horizon_at: datetime
    """By when the last copies in the data folder are gone, if a server runs on it."""
    born_at: datetime
    identity_id: int = 0
    identity_hash: str = ""
    template_ids: tuple[int, ...] = ()
    source_hashes: tuple[str, ...] = ()
    identity_count: int = 0
    template_count: int = 0
    crop_count: int = 0
    key_ids: tuple[str, ...] = ()
    """The data keys that have to be destroyed with it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "erasure_id": self.erasure_id,
            "store_id": self.store_id,
            "scope": self.scope.value,
            "reason": self.reason.value,
            "gallery": self.gallery,
            "gallery_id": self.gallery_id,
            "revision": self.revision,
            "erased_at": moment_text(self.erased_at),
            "horizon_at": moment_text(self.horizon_at),
            "born_at": moment_text(self.born_at),
            "identity_id": self.identity_id,
            "identity_hash": self.identity_hash,
            "template_ids": list(self.template_ids),
            "source_hashes": list(self.source_hashes),
            "identity_count": self.identity_count,
            "template_count": self.template_count,
            "crop_count": self.crop_count,
            "key_ids": list(self.key_ids),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Tombstone:
        moments = {name: datetime.fromisoformat(document[name]) for name in ("erased_at", "horizon_at", "born_at")}
        lists = {name: tuple(document[name]) for name in ("template_ids", "source_hashes", "key_ids")}
        choices = {"scope": ErasureScope(document["scope"]), "reason": ErasureReason(document["reason"])}
        values: dict[str, Any] = {**document, **moments, **lists, **choices}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """An erasure as it stands in the store."""

    tombstone: Tombstone
    receipt: str
    """The signed document; empty while the erasure is being completed."""
    purged_at: datetime | None
    """When the last copies in the data folder were found gone; None before."""


@dataclass(frozen=True, slots=True)
class KeyedHash:
    """HMAC-SHA256 under a key of this installation: the same text can be found again, and not be read from the hash."""

    key: bytes

    def of_identity(self, external_id: str) -> str:
        return self._hash("identity", external_id)

    def of_source(self, source_digest: str) -> str:
        return self._hash("source", source_digest)

    def of_request(self, request_id: str) -> str:
        return self._hash("request", request_id)

    def _hash(self, kind: str, text: str) -> str:
        return hmac.new(self.key, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()


def moment_text(moment: datetime) -> str:
    """UTC to the microsecond, always of the same length."""
    return moment.astimezone(UTC).isoformat("T", "microseconds")
