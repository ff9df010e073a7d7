"""Page tokens: the last name of the page before, so that pages neither repeat nor skip while people are enrolled."""

from __future__ import annotations

import base64
import binascii

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.texts import checked_text

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000
# Of the numbers that a database counts with.
_MOST_DIGITS = 18


def page_size(requested: int) -> int:
    if not 0 <= requested <= MAX_PAGE_SIZE:
        raise InvalidArgument("page_size", f"must lie between 1 and {MAX_PAGE_SIZE}, or be 0 for {DEFAULT_PAGE_SIZE}")
    return requested or DEFAULT_PAGE_SIZE


def token_after(name: str) -> str:
    """The token of the page that begins after `name`."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def number_before(token: str) -> int | None:
    """The number of a token that `token_after` made of one; None for an empty token."""
    name = name_before(token)
    if not name:
        return None
    if not name.isdecimal() or len(name) > _MOST_DIGITS:
        raise InvalidArgument("page_token", "is not one that this server gave; leave it empty for the first page")
    return int(name)


def name_before(token: str) -> str:
    """The inverse of `token_after`; an empty token begins at the start."""
    try:
        return checked_text(base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode(), "page_token")
    except (binascii.Error, UnicodeError, InvalidArgument):
        raise InvalidArgument(
            "page_token", "is not one that this server gave; leave it empty for the first page"
        ) from None
