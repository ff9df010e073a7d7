"""Which transform the vectors of a gallery have, and the secret that it needs."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from facedex.indexer.errors import TemplateSecretInvalid, TemplateSecretMissing, TemplateSecretWrong
from facedex.indexer.store.orthogonal import SECRET_BYTES, SEED_BYTES, Transform
from facedex.indexer.store.transform_rows import KeyPlace, TransformRecord

if TYPE_CHECKING:
    from pathlib import Path

    from facedex.indexer.store.key_store import KeyStore

# Galleries whose transforms are held in memory; of 512 components each takes 2 MB.
AT_HAND = 64


class Transforms:
    """Makes transforms of seeds in the key store and a secret that lies elsewhere: neither tells anything by itself."""

    def __init__(self, keys: KeyStore, secret: bytes | None) -> None:
        self._keys = keys
        self._secret = secret
        # A seed never changes, and nobody asks for that of a key that is destroyed.
        self.of = lru_cache(AT_HAND)(self._of)

    def check(self, store_id: str) -> None:
        """Raises TemplateSecretMissing, TemplateSecretWrong: vectors could not be read."""
        for each in self._keys.transforms(store_id):
            if not each.is_none and not hmac.compare_digest(each.proof, _proof(self._needed_secret(), each.seed)):
                raise TemplateSecretWrong

    def renew(self, place: KeyPlace) -> TransformRecord:
        """A new transform for a gallery: vectors under keys that are made from now on get it."""
        if self._secret is None:
            raise TemplateSecretMissing("a transform needs a secret, which facedex-index transforms make-secret makes")
        seed = secrets.token_bytes(SEED_BYTES)
        return self._added(place, seed, _proof(self._secret, seed))

    def drop(self, place: KeyPlace) -> TransformRecord:
        """Vectors under keys that are made from now on are stored as they are."""
        return self._added(place, b"", b"")

    def _added(self, place: KeyPlace, seed: bytes, proof: bytes) -> TransformRecord:
        record = TransformRecord(secrets.token_hex(16), place.gallery_id, seed, proof, datetime.now(UTC))
        self._keys.add_transform(place, record)
        return record

    def _of(self, transform_id: str) -> Transform:
        """Raises TemplateSecretMissing, also where the transform is destroyed though somebody's vectors have it."""
        record = self._keys.transform(transform_id)
        if record is None:
            raise TemplateSecretMissing("a transform is destroyed")
        return Transform(self._needed_secret(), record.seed)

    def _needed_secret(self) -> bytes:
        if self._secret is None:
            raise TemplateSecretMissing("vectors are transformed with this installation's secret")
        return self._secret


def _proof(secret: bytes, seed: bytes) -> bytes:
    return hmac.new(secret, b"facedex proof" + seed, hashlib.sha256).digest()


def read_secret(file: Path) -> bytes:
    """Raises TemplateSecretInvalid."""
    try:
        text = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateSecretInvalid(file, "cannot be read" if isinstance(error, OSError) else "is no text") from None
    if len(text) != 2 * SECRET_BYTES or not set(text) <= set(string.hexdigits):
        problem = (
            f"does not hold {2 * SECRET_BYTES} hexadecimal digits, as facedex-index transforms make-secret writes them"
        )
        raise TemplateSecretInvalid(file, problem)
    return bytes.fromhex(text)


def new_secret() -> str:
    """As it is written into a file."""
    return secrets.token_hex(SECRET_BYTES)
