"""What was erased, and receipts that anybody can check."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from facedex.client.errors import Failure, PublicKeyInvalidError, ReceiptInvalidError, UncheckableReceiptError

RECEIPT_FORMAT = "facedex erasure receipt 1"
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


class ErasureScope(StrEnum):
    """What was erased as one."""

    IDENTITY = "IDENTITY"
    TEMPLATE = "TEMPLATE"
    GALLERY = "GALLERY"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


class ErasureReason(StrEnum):
    """Why it was erased."""

    REQUESTED = "REQUESTED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """One erasure as the server remembers it; it does not remember of whom.

    `horizon_time` is by when the last copies in the server's data folder are gone, `purge_time` when they were, None
    before. `receipt` is the signed document, one line of JSON; empty while the erasure is being completed.
    """

    id: str
    scope: ErasureScope
    reason: ErasureReason
    gallery: str
    identity_number: int
    identity_count: int
    template_count: int
    revision: int
    erase_time: datetime | None
    horizon_time: datetime | None
    purge_time: datetime | None
    receipt: str


@dataclass(frozen=True, slots=True)
class ErasureCheck:
    """Whether a server still holds anything of an erasure: `held` says what, for people; empty: nothing.

    `record` is None where the server's database knows nothing of the erasure.
    """

    held: tuple[str, ...]
    record: ErasureRecord | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt says; its signature is genuine for `public_key`, 64 hexadecimal digits."""

    content: Mapping[str, Any]
    public_key: str
    is_of_trusted_key: bool
    """Whether the caller named the key; else it is the one that came with the receipt, and proves no origin."""


def verify_receipt(text: str, *, public_key: str | None = None) -> Receipt:
    """Checks a receipt's signature, offline.

    `public_key` is the installation's, 64 hexadecimal digits, from wherever it is trusted; without it the receipt's own
    is taken, which only shows that the receipt was not changed. Raises ReceiptInvalidError; PublicKeyInvalidError where
    what is named is no such key; UncheckableReceiptError where the package `cryptography` is not installed.
    """
    content, signature, own_key = _parts(text)
    key = own_key if public_key is None else _named_key(public_key)
    if key != own_key:
        raise _invalid("it was signed by another installation")
    if not _is_signed(content, signature, key):
        raise _invalid("its signature is wrong: it was changed since it was signed")
    if content.get("store") != hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32]:
        raise _invalid("its key is not that of the installation that it names")
    if content.get("format") != RECEIPT_FORMAT:
        raise _invalid("it is of a form that this version does not know")
    return Receipt(content, key, is_of_trusted_key=public_key is not None)


def _named_key(text: str) -> str:
    key = text.strip().lower()
    if not PUBLIC_KEY.fullmatch(key):
        raise PublicKeyInvalidError
    return key


def _parts(text: str) -> tuple[dict[str, Any], bytes, str]:
    try:
        document = json.loads(text)
        return dict(document["receipt"]), bytes.fromhex(document["signature"]), str(document["public_key"]).lower()
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _invalid("it is no receipt of an erasure") from None


def _is_signed(content: dict[str, Any], signature: bytes, key: str) -> bool:
    try:  # an extra: only for who checks receipts
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError:
        raise UncheckableReceiptError from None
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, canonical)
    except (InvalidSignature, ValueError):
        return False
    return True


def _invalid(problem: str) -> ReceiptInvalidError:
    message = f"the receipt cannot be relied on: {problem}"
    return ReceiptInvalidError(Failure(message, code="INVALID_ARGUMENT", reason="RECEIPT_INVALID"))
