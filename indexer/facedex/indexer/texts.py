"""What texts about a person may be, from whichever side they come."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facedex.indexer.store.records import IdentityDetails

MAX_CHARACTERS = 255
MAX_ATTRIBUTES = 64
MAX_KEY_CHARACTERS = 63
# Control characters and line breaks. Joiners and wide spaces stay: names in Persian and Japanese need them.
REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def checked_text(text: str, field: str, *, max_characters: int = MAX_CHARACTERS) -> str:
    if len(text) > max_characters:
        raise InvalidArgument(field, f"may have {max_characters} characters at most")
    if any(unicodedata.category(character) in REFUSED_CATEGORIES for character in text):
        raise InvalidArgument(field, "may hold no control characters")
    return text


def checked_identity_id(identity_id: str) -> str:
    """As the store takes it: not empty, not too long, nothing that a terminal or a database would trip over."""
    if not 1 <= len(identity_id) <= MAX_CHARACTERS:
        raise InvalidArgument("identity_id", f"needs 1 to {MAX_CHARACTERS} characters")
    return checked_text(identity_id, "identity_id")


def checked_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgument("attributes", f"may be {MAX_ATTRIBUTES} at most")
    for key, value in attributes.items():
        if not key:
            raise InvalidArgument("attributes", "an attribute needs a key")
        checked_text(key, "attributes", max_characters=MAX_KEY_CHARACTERS)
        checked_text(value, "attributes")
    return dict(attributes)


def checked_details(details: IdentityDetails) -> IdentityDetails:
    """Raises InvalidArgument where one of the texts is none that the store takes."""
    checked_identity_id(details.external_id)
    checked_attributes(details.attributes or {})
    for field in ("display_name", "consent_reference", "purpose"):
        checked_text(getattr(details, field) or "", field)
    return details
