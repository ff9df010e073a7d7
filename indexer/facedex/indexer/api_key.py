"""API keys: who may do what, in which galleries, how often and how long."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from datetime import datetime

# A key begins with a word that scanners of repositories and logs can look for.
KEY = re.compile(r"facedex_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
KEY_ID_BYTES = 8
SECRET_BYTES = 32


class Role(enum.Enum):
    """What a key may be good for. None of them contains another; a key may have several."""

    SEARCH = "search"  # find out who is on a photograph
    ENROL = "enrol"  # enrol, read, change and erase people
    ADMINISTER = (
        "administer"  # tend galleries, legal holds, calibrations and jobs; erase people, hand out what is held of them
    )
    AUDIT = "audit"  # read what was done and what was erased
    VECTORS = "vectors"  # get vectors, in the answers that another role is good for


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its holder has it. The id is no secret and stands in logs; the secret is shown once and stored nowhere."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> KeyText:
        return cls(secrets.token_hex(KEY_ID_BYTES), secrets.token_hex(SECRET_BYTES))

    @classmethod
    def parsed(cls, text: str) -> KeyText | None:
        """The key that a text is; None for any other text."""
        match = KEY.fullmatch(text)
        return None if match is None else cls(match[1], match[2])

    def __str__(self) -> str:
        return f"facedex_{self.key_id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret: 256 random bits need no slow hash, there is nothing to guess."""
        return hashlib.sha256(self.secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is good for.

    `galleries` None means all of them, also those that are made later. `calls_per_second` and `calls_per_day` count calls,
    and each message of a stream; None: as many as the server takes.
    """

    label: str
    roles: frozenset[Role]
    galleries: frozenset[str] | None = None
    calls_per_second: float | None = None
    calls_per_day: int | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.roles:
            raise InvalidArgument("role", f"a key needs one or more of {', '.join(each.value for each in Role)}")
        if self.galleries is not None and not self.galleries:
            raise InvalidArgument("gallery", "a key needs a gallery at least, or all of them")
        for name, limit in (("calls_per_second", self.calls_per_second), ("calls_per_day", self.calls_per_day)):
            if limit is not None and limit <= 0:
                raise InvalidArgument(name, "must be above 0")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the store has it."""

    key_id: str
    terms: KeyTerms
    created_at: datetime
    revoked_at: datetime | None
    secret_digest: bytes = field(repr=False)

    def is_secret_of(self, text: KeyText) -> bool:
        """Whether the text is this key. It takes as long for a wrong secret as for the right one."""
        return hmac.compare_digest(self.secret_digest, text.digest)

    def is_expired(self, now: datetime) -> bool:
        return self.terms.expires_at is not None and self.terms.expires_at <= now

    def sees(self, gallery: str) -> bool:
        """Whether the key is good for a gallery, if that exists."""
        return self.terms.galleries is None or gallery in self.terms.galleries


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, with the only copy of its text."""

    key: ApiKey
    text: KeyText
