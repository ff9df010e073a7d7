from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.api_key import ApiKey, IssuedKey, KeyText
from facedex.indexer.audit import LOCAL, AuditEvent
from facedex.indexer.errors import ApiKeyNotFound
from facedex.indexer.store import api_key_rows, audit_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection

    from facedex.indexer.api_key import KeyTerms

    Transaction = Callable[[], AbstractContextManager[Connection]]


class ApiKeys:
    """The API keys of an installation.

    A key is never deleted, only revoked: once there was one, the servers ask for a key, and revoking the last one does not
    open them to everybody again.
    """

    def __init__(self, *, reading: Transaction, writing: Transaction, clock: Callable[[], datetime]) -> None:
        self._reading = reading
        self._writing = writing
        self._clock = clock

    def create(self, terms: KeyTerms) -> IssuedKey:
        """A new key. Its text is known to the caller alone from now on."""
        text = KeyText.new()
        with self._writing() as connection:
            now = self._clock()
            api_key_rows.insert_key(connection, text, terms, now=now)
            _record(connection, "keys create", text.key_id, now)
        return IssuedKey(ApiKey(text.key_id, terms, now, None, text.digest), text)

    def all(self) -> list[ApiKey]:
        """All keys that ever were, the newest first."""
        with self._reading() as connection:
            return api_key_rows.select_keys(connection)

    def revoke(self, key_id: str) -> ApiKey:
        """From now on nobody gets in with it. Raises ApiKeyNotFound."""
        with self._writing() as connection:
            now = self._clock()
            revoked = api_key_rows.revoke_key(connection, key_id, now=now)
            if revoked is not None:
                _record(connection, "keys revoke", key_id, now)
        if revoked is None:
            raise ApiKeyNotFound(key_id)
        return revoked

    def add_calls(self, key_id: str, calls: int) -> int:
        """Adds to what a key has called today (UTC), and returns the sum of all servers."""
        with self._writing() as connection:
            return api_key_rows.add_calls(connection, key_id, self._clock().date(), calls)

    def calls_today(self) -> dict[str, int]:
        """What each key has called today (UTC), up to about a second ago."""
        with self._reading() as connection:
            return api_key_rows.select_calls(connection, self._clock().date())


def _record(connection: Connection, action: str, key_id: str, now: datetime) -> None:
    # In the transaction itself, so that there is no key of which the audit knows nothing.
    audit_rows.append(connection, [AuditEvent(now, LOCAL, action, outcome=key_id)])
