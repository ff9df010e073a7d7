"""Who may do what: callers, the rules of methods, and how calls are denied.

AccessDenied
├── NotKnown                no key, or none that is good: UNAUTHENTICATED
│   ├── KeyMissing
│   ├── KeyInvalid          no key of this installation, or not written as one
│   ├── KeyRevoked
│   └── KeyExpired
└── NotAllowed              the key is good, for something else: PERMISSION_DENIED
    ├── RoleMissing
    └── GalleryDenied
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from facedex.indexer.api_key import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from facedex.indexer.api_key import ApiKey

    Gallery = Callable[[Any], str]
    """The gallery that a request names; empty where it names none."""


class AccessDenied(Exception):
    """The caller may not do this."""

    reason: ClassVar[str]


class NotKnown(AccessDenied):
    """The caller has no key that is good."""


class KeyMissing(NotKnown):
    """The server asks for a key, and none came."""

    reason = "KEY_MISSING"

    def __init__(self) -> None:
        super().__init__(
            "this server asks for an API key: send the metadata 'authorization: Bearer facedex_…', "
            "or give facedex --api-key-file; facedex-index keys create makes a key"
        )


class KeyInvalid(NotKnown):
    """It is no key of this installation, or not written as one."""

    reason = "KEY_INVALID"

    def __init__(self) -> None:
        super().__init__("the API key is none of this server's; look whether it is whole, or ask for a new one")


class KeyRevoked(NotKnown):
    """Somebody revoked the key."""

    reason = "KEY_REVOKED"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"API key {key_id} is revoked; ask for a new one")


class KeyExpired(NotKnown):
    """The key's time is over."""

    reason = "KEY_EXPIRED"

    def __init__(self, key_id: str, expired_at: datetime) -> None:
        super().__init__(f"API key {key_id} expired at {expired_at:%Y-%m-%d %H:%M} UTC; ask for a new one")


class NotAllowed(AccessDenied):
    """The caller's key is not good for this."""


class RoleMissing(NotAllowed):
    """The key is not good for this method, or not for what the request asks of it."""

    reason = "ROLE_MISSING"

    def __init__(self, key_id: str, roles: frozenset[Role]) -> None:
        wanted = " or ".join(sorted(each.value for each in roles)) or "one that no key has"
        super().__init__(f"API key {key_id} lacks the role {wanted}; use a key that has it, or ask for one")


class GalleryDenied(NotAllowed):
    """The gallery is none of the key's. Whether there is one of that name is not told."""

    reason = "GALLERY_DENIED"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"API key {key_id} is not for this gallery; use one of its galleries, or ask for another key")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Without a key, somebody at a server that asks nobody for one."""

    key: ApiKey | None = None

    @property
    def key_id(self) -> str:
        return "" if self.key is None else self.key.key_id

    @property
    def galleries(self) -> frozenset[str] | None:
        """Names of the galleries that the caller may see; None: all."""
        return None if self.key is None else self.key.terms.galleries

    def sees(self, gallery: str) -> bool:
        return self.key is None or self.key.sees(gallery)

    def require_role(self, roles: frozenset[Role]) -> None:
        """Raises RoleMissing where the caller has none of them."""
        if self.key is not None and not roles & self.key.terms.roles:
            raise RoleMissing(self.key.key_id, roles)

    def require_gallery(self, gallery: str) -> None:
        """Raises GalleryDenied."""
        if self.key is not None and not self.key.sees(gallery):
            raise GalleryDenied(self.key.key_id)


def _no_more(_request: Any) -> frozenset[Role]:
    return frozenset()


class Recorded(enum.Enum):
    """What the audit keeps of a method's calls that are answered. What is refused is kept of every method."""

    NOT = "not"  # it tells of the server, and is asked again and again
    SOON = "soon"  # on disk a moment after the answer
    BEFORE_ANSWER = "before the answer"  # what changes something, or hands out what is held of a person


@dataclass(frozen=True, slots=True)
class Rule:
    """What a caller needs for a method: one of the roles, and the gallery that the request names.

    `gallery` None: the request names none, and what is answered is of the caller's galleries only, or of none. `more` tells
    what a request needs besides: each of these roles.
    """

    roles: frozenset[Role]
    gallery: Gallery | None = None
    more: Callable[[Any], frozenset[Role]] = field(default=_no_more)
    recorded: Recorded = Recorded.SOON

    def check(self, caller: Caller, request: Any) -> None:
        """Raises NotAllowed where the caller may not make this request; that they have one of the roles is known."""
        gallery = "" if self.gallery is None else self.gallery(request)
        # An empty name is for the method to judge.
        if gallery:
            caller.require_gallery(gallery)
        for role in sorted(self.more(request), key=lambda each: each.value):
            caller.require_role(frozenset({role}))
