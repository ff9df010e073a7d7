"""Receipts of erasures: canonical JSON, signed with Ed25519 (RFC 8032), to be checked by anybody who has the public key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from facedex.indexer.errors import ReceiptInvalid
from facedex.indexer.store.tombstones import ErasureScope, moment_text

if TYPE_CHECKING:
    from facedex.indexer.store.tombstones import Tombstone

FORMAT = "facedex erasure receipt 1"
COVERED = (
    "rows of the database",
    "write-ahead log and free space of the database",
    "snapshots of the index",
    "remembered answers",
)
COVERED_ON_POSTGRESQL = ("rows of the database", "snapshots of the index", "remembered answers")
NOT_COVERED = (
    "backups of the database and exports that were made before",
    "blocks that the file system or the disk keeps of what was overwritten or deleted",
    "memory of running processes, its swap space and crash dumps",
)
NOT_COVERED_ON_POSTGRESQL = (
    *NOT_COVERED,
    "dead rows, write-ahead log and archives of PostgreSQL: its operator's VACUUM FULL and retention decide",
)


class Signer:
    """Signs with the installation's key. The same erasure always gets the same receipt."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._private.public_key().public_bytes_raw()
        # Names the installation, and with it the key: the first half of the public key's SHA-256.
        self.store_id = hashlib.sha256(self.public_key).hexdigest()[:32]

    def receipt(self, tombstone: Tombstone, *, on_postgresql: bool) -> str:
        """The signed document: one line of JSON, with the public key for those who trust where they got it."""
        content = _content(tombstone, on_postgresql=on_postgresql)
        signature = self._private.sign(canonical(content))
        signed = {"receipt": content, "signature": signature.hex(), "public_key": self.public_key.hex()}
        return canonical(signed).decode()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a genuine receipt says was erased, by the store's numbers."""

    erasure_id: str
    scope: ErasureScope
    erased_at: datetime
    gallery: str
    gallery_number: int
    gallery_numbers: tuple[int, ...]
    identity_numbers: tuple[int, ...]
    template_numbers: tuple[int, ...]

    @classmethod
    def of(cls, text: str, public_key: bytes) -> Receipt:
        """Raises ReceiptInvalid."""
        content = verified(text, public_key)
        scope = ErasureScope(content["scope"])
        return cls(
            erasure_id=content["erasure"],
            scope=scope,
            erased_at=datetime.fromisoformat(content["erased_at"]),
            gallery=content["gallery"],
            gallery_number=content["gallery_number"],
            gallery_numbers=(content["gallery_number"],) if scope is ErasureScope.GALLERY else (),
            identity_numbers=(content["identity_number"],) if scope is ErasureScope.IDENTITY else (),
            template_numbers=tuple(content["templates"]),
        )


def canonical(document: dict[str, Any]) -> bytes:
    """The one spelling of a document of texts, whole numbers and lists: sorted keys, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def verified(text: str, public_key: bytes) -> dict[str, Any]:
    """The content of a receipt that was signed with this key.

    Raises:
        ReceiptInvalid: it is no receipt, or was signed with another key, or was changed since.

    """
    try:
        document = json.loads(text)
        content: dict[str, Any] = document["receipt"]
        signature = bytes.fromhex(document["signature"])
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, canonical(content))
    except InvalidSignature:
        raise ReceiptInvalid("its signature is not that of this installation, or it was changed") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ReceiptInvalid("it is no receipt of an erasure") from None
    if content.get("format") != FORMAT:
        raise ReceiptInvalid("it is of a form that this version does not know")
    return content


def _content(tombstone: Tombstone, *, on_postgresql: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "erasure": tombstone.erasure_id,
        "store": tombstone.store_id,
        "scope": tombstone.scope.value,
        "reason": tombstone.reason.value,
        "gallery": tombstone.gallery,
        "gallery_number": tombstone.gallery_id,
        "identity_number": tombstone.identity_id,
        "identity_hash": tombstone.identity_hash,
        "templates": list(tombstone.template_ids),
        "identity_count": tombstone.identity_count,
        "template_count": tombstone.template_count,
        "crop_count": tombstone.crop_count,
        "destroyed_key_count": len(tombstone.key_ids),
        "revision": tombstone.revision,
        "erased_at": moment_text(tombstone.erased_at),
        "horizon_at": moment_text(tombstone.horizon_at),
        "horizon": "by then, if a server runs on the data folder, nothing is left in what is covered; the server confirms it",
        "covered": list(COVERED_ON_POSTGRESQL if on_postgresql else COVERED),
        "not_covered": list(NOT_COVERED_ON_POSTGRESQL if on_postgresql else NOT_COVERED),
    }
