"""Vectors and crops under the data key of their identity: AES-256-GCM (NIST SP 800-38D)."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facedex.indexer.errors import DataKeyMissing, SealBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from facedex.indexer.store.key_store import DataKey, KeyStore
    from facedex.indexer.store.orthogonal import Transform
    from facedex.indexer.store.transforms import Transforms

Read = TypeVar("Read")

NONCE_BYTES = 12
VECTOR = "vector"
CROP = "crop"
# More than one transaction of enrolments makes.
MOST_FRESH = 1_024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext belongs; moved anywhere else it cannot be opened.

    An identity holds a photograph once for each model, so model and photograph name one template of the key's identity,
    and, unlike its number, are known before the row is written.
    """

    part: str
    model_digest: str
    source_digest: str

    @classmethod
    def of_crop(cls, crop_model: str | None, model_digest: str, source_digest: str) -> Place:
        """Of a crop that was aligned for `crop_model`, where that is not the model of the vector."""
        return cls(CROP, crop_model or model_digest, source_digest)

    def bound_to(self, key_id: str) -> bytes:
        return f"facedex 1:{key_id}:{self.part}:{self.model_digest}:{self.source_digest}".encode()


class Sealer(Protocol):
    """Turns what is known of a face into what is stored of it, and back."""

    def seal(self, content: bytes, place: Place, /) -> bytes: ...

    def opened(self, stored: bytes, place: Place, /) -> bytes:
        """Raises SealBroken."""
        ...


class Open:
    """Stores everything as it is."""

    def seal(self, content: bytes, _place: Place, /) -> bytes:
        return content

    def opened(self, stored: bytes, _place: Place, /) -> bytes:
        return stored


class Sealed:
    """Encrypts under one identity's key, with a random nonce each time; vectors are turned before, if there is a transform."""

    def __init__(self, key_id: str, key: bytes, transform: Transform | None = None) -> None:
        self._key_id = key_id
        self._cipher = AESGCM(key)
        self._transform = transform

    def seal(self, content: bytes, place: Place, /) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        if self._transform is not None and place.part == VECTOR:
            content = self._transform.turned(content)
        return nonce + self._cipher.encrypt(nonce, content, place.bound_to(self._key_id))

    def opened(self, stored: bytes, place: Place, /) -> bytes:
        nonce, content = stored[:NONCE_BYTES], stored[NONCE_BYTES:]
        try:
            opened = self._cipher.decrypt(nonce, content, place.bound_to(self._key_id))
        except (InvalidTag, ValueError):
            raise SealBroken from None
        if self._transform is not None and place.part == VECTOR:
            return self._transform.restored(opened)
        return opened


class KeysGone(Exception):
    """Keys that rows name are gone: destroyed with their people, or replaced since the rows were read."""

    def __init__(self, key_ids: Collection[str]) -> None:
        super().__init__(f"{len(key_ids)} data keys")
        self.key_ids = frozenset(key_ids)


def _nothing(_key_ids: Collection[str]) -> None:
    """Who holds the lock of a gallery reads only rows whose keys are the newest: what is gone is gone."""


class FreshSealers:
    """Sealers of keys made just now, each for the first one who opens what was sealed with it.

    Reading a key back takes as long as making it. Those that nobody asks for give way to newer ones.
    """

    def __init__(self, *, at_most: int = MOST_FRESH) -> None:
        self._at_most = at_most
        self._sealers: dict[str, Sealer] = {}
        self._taking = threading.Lock()

    def keep(self, sealers: Mapping[str, Sealer]) -> None:
        with self._taking:
            self._sealers.update(sealers)
            for oldest in list(self._sealers)[: -self._at_most]:
                del self._sealers[oldest]

    def taken(self, key_ids: Iterable[str]) -> dict[str, Sealer]:
        """Those of them that are here, and are here no more."""
        with self._taking:
            return {each: self._sealers.pop(each) for each in key_ids if each in self._sealers}


class Seals:
    """The sealers of identities, by the names of their keys; whoever has no key is stored open.

    `notice` is told which of the keys that are asked for are gone, and may raise.
    """

    def __init__(
        self,
        keys: KeyStore | None = None,
        transforms: Transforms | None = None,
        *,
        fresh: FreshSealers | None = None,
        notice: Callable[[Collection[str]], None] = _nothing,
    ) -> None:
        self._keys = keys
        self._transforms = transforms
        self._fresh = fresh or FreshSealers()
        self._notice = notice

    @property
    def are_used(self) -> bool:
        return self._keys is not None

    def noticing(self, notice: Callable[[Collection[str]], None]) -> Seals:
        return Seals(self._keys, self._transforms, fresh=self._fresh, notice=notice)

    def of(self, key_id: str) -> Sealer:
        """Raises DataKeyMissing where the key is destroyed."""
        sealer = self.among([key_id]).get(key_id)
        if sealer is None:
            raise DataKeyMissing
        return sealer

    def among(self, key_ids: Iterable[str]) -> Mapping[str, Sealer]:
        """Those whose keys are not destroyed."""
        wanted = set(key_ids) - {""}
        if self._keys is None or not wanted:
            return {"": Open()}
        fresh = self._fresh.taken(wanted)
        wanted -= fresh.keys()
        found = self._keys.keys(wanted) if wanted else {}
        if len(found) < len(wanted):
            self._notice(wanted - found.keys())
        return {"": Open(), **fresh, **self.under(found.values())}

    def under(self, keys: Iterable[DataKey]) -> dict[str, Sealer]:
        """The sealers of these keys, by their names."""
        return {each.key_id: self._sealer(each) for each in keys}

    def fresh(self, keys: Iterable[DataKey]) -> dict[str, Sealer]:
        """The sealers of keys made just now; who asks for one of them next is spared reading the key."""
        sealers = self.under(keys)
        self._fresh.keep(sealers)
        return sealers

    def _sealer(self, key: DataKey) -> Sealer:
        transform = self._transforms.of(key.transform_id) if self._transforms and key.transform_id else None
        return Sealed(key.key_id, key.key, transform)


class SealedReading:
    """Reads what is encrypted, beside a rotation of keys: rows whose keys were replaced and destroyed are read again."""

    def __init__(self, reading: Callable[[], AbstractContextManager[Connection]], seals: Seals) -> None:
        self._reading = reading
        self._seals = seals

    def __call__(self, read: Callable[[Connection, Seals], Read]) -> Read:
        """What `read` returns; it may be called more than once."""
        # Whatever names these was read after they were gone: its people cannot be read any more.
        gone: set[str] = set()

        def notice(key_ids: Collection[str]) -> None:
            if not gone.issuperset(key_ids):
                raise KeysGone(key_ids)

        while True:
            try:
                with self._reading() as connection:
                    return read(connection, self._seals.noticing(notice))
            except KeysGone as early:
                gone |= early.key_ids
