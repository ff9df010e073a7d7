from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from facedex.indexer.api_key import KeyText
from facedex.indexer.errors import StoreUnavailable
from facedex.server.access import Caller, KeyExpired, KeyInvalid, KeyMissing, KeyRevoked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from facedex.indexer.api_key import ApiKey

# How long a revoked key may still be answered.
MAX_AGE_SECONDS = 1.0
# A key that is not known may have been made a moment ago; nobody makes the server read more often than this.
LEAST_AGE_SECONDS = 0.01
BEARER = "bearer "


class KeyRing:
    """The API keys, as the database had them a second ago at most.

    Once there was a key, everybody needs one. Where the database does not answer, nobody gets in: whether a key was revoked
    cannot be known then.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[ApiKey]],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._now = now
        self._clock = clock
        self._reading = threading.Lock()
        self._keys: Mapping[str, ApiKey] = {}
        self._read_at = -MAX_AGE_SECONDS
        self._failure: tuple[float, StoreUnavailable] | None = None

    @property
    def is_used(self) -> bool:
        """Whether callers need a key."""
        return bool(self._current())

    def caller(self, authorization: str | None) -> Caller:
        """Who this is, by the text of the metadata `authorization`. Raises NotKnown, StoreUnavailable."""
        keys = self._current()
        if not keys and authorization is not None:
            keys = self._current(max_age_seconds=LEAST_AGE_SECONDS)
        if not keys:
            return Caller()
        if authorization is None:
            raise KeyMissing
        key = self._genuine(_key_of(authorization), keys)
        # Only to whoever has the secret is it told what became of the key.
        if key.revoked_at is not None:
            raise KeyRevoked(key.key_id)
        if key.terms.expires_at is not None and key.is_expired(self._now()):
            raise KeyExpired(key.key_id, key.terms.expires_at)
        return Caller(key)

    def known_caller(self, authorization: str | None) -> Caller | None:
        """Who this is by the keys that were read last, however old; None where that cannot be told."""
        text = None if authorization is None else _key_of(authorization)
        if text is None:
            return None
        key = self._keys.get(text.key_id)
        return Caller(key) if key is not None and key.is_secret_of(text) else None

    def _genuine(self, text: KeyText | None, keys: Mapping[str, ApiKey]) -> ApiKey:
        """The key that has this text. Raises KeyInvalid."""
        if text is None:
            raise KeyInvalid
        key = keys.get(text.key_id) or self._current(max_age_seconds=LEAST_AGE_SECONDS).get(text.key_id)
        if key is None or not key.is_secret_of(text):
            raise KeyInvalid
        return key

    def _current(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> Mapping[str, ApiKey]:
        asked_at = self._clock()
        with self._reading:
            # Whoever waited for a reading shares what came of it, or they would wait for the database one after the other.
            if self._failure is not None and self._failure[0] >= asked_at:
                raise StoreUnavailable(self._failure[1].cause)
            if self._clock() - self._read_at >= max_age_seconds:
                self._keys = self._read_keys()
                self._read_at = self._clock()
            return self._keys

    def _read_keys(self) -> Mapping[str, ApiKey]:
        try:
            return {each.key_id: each for each in self._read()}
        except StoreUnavailable as error:
            self._failure = self._clock(), error
            raise


def _key_of(authorization: str) -> KeyText | None:
    if authorization[: len(BEARER)].lower() != BEARER:
        return None
    return KeyText.parsed(authorization[len(BEARER) :].strip())
