"""Who is encrypted: new identities at once, those of before step by step; and keys that nobody needs."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from facedex.indexer.errors import DataKeysMissing
from facedex.indexer.store import change_rows, encrypting, gallery_rows
from facedex.indexer.store.sealing import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from facedex.indexer.store.erasures import Erasures
    from facedex.indexer.store.key_store import KeyStore

    Transaction = Callable[[], AbstractContextManager[Connection]]

logger = logging.getLogger(__name__)

PER_READ = 1_000
# A key that is younger may be that of an enrolment under way, or of a database that is about to be restored.
LEAST_ORPHAN_AGE = timedelta(days=1)


class Encryption:
    """Keeps keys and rows in step: a key is on disk before a row is encrypted with it, and goes after the row went.

    So a crash leaves a key without rows at most, which `sweep` destroys, and never a row that was acknowledged and
    cannot be read.
    """

    def __init__(
        self, erasures: Erasures, *, reading: Transaction, writing: Transaction, keys: KeyStore | None
    ) -> None:
        self._erasures = erasures
        self._reading = reading
        self._writing = writing
        self._keys = keys

    @property
    def is_on(self) -> bool:
        return self._keys is not None

    def check_keys(self) -> None:
        """Raises DataKeysMissing where somebody is encrypted, and the keys given are not this installation's."""
        with self._reading() as connection:
            in_use = encrypting.select_key_ids(connection)
        if self._keys is None:
            if in_use:
                raise DataKeysMissing(f"{len(in_use)} identities are encrypted")
            return
        store_id = self._erasures.signer.store_id
        if not self._keys.serves(store_id):
            if in_use:
                raise DataKeysMissing("the data keys given are another installation's, or none")
            self._keys.admit(store_id)
        self._report(in_use)

    def _report(self, in_use: set[str]) -> None:
        lost = len(in_use) - len(self._keys.keys(in_use)) if self._keys is not None else 0
        if lost:
            logger.warning("%d identities cannot be read: their data keys are gone, as after an erasure", lost)
        open_count = self.count_open()
        if open_count:
            logger.warning("%d identities are not encrypted yet: run facedex-index encrypt", open_count)

    def count_open(self) -> int:
        """How many identities are not encrypted."""
        with self._reading() as connection:
            return encrypting.count_open(connection)

    def new_key_id(self) -> str:
        """The name of a new key, which is on disk before anything is encrypted with it; empty where there are no keys."""
        return "" if self._keys is None else self._keys.create(self._erasures.signer.store_id).key_id

    def encrypt(self) -> Iterator[int]:
        """Encrypts who is not encrypted, one identity a transaction, and gives the number of each; may be broken off."""
        after = 0
        while batch := self._open_after(after):
            for identity_id, gallery_id in batch:
                if self._encrypt_one(identity_id, gallery_id):
                    yield identity_id
            after = batch[-1][0]

    def _open_after(self, after: int) -> list[tuple[int, int]]:
        with self._reading() as connection:
            return encrypting.select_open(connection, after=after, limit=PER_READ)

    def _encrypt_one(self, identity_id: int, gallery_id: int) -> bool:
        if self._keys is None:
            raise DataKeysMissing("there are no data keys to encrypt with")
        key = self._keys.create(self._erasures.signer.store_id)
        with self._writing() as connection:
            gallery = gallery_rows.locked_gallery(connection, gallery_id)
            done = gallery is not None and encrypting.seal_identity(
                connection, identity_id, key.key_id, Sealed(key.key_id, key.key)
            )
        if not done:
            self._keys.destroy([key.key_id])
        return done

    def sweep(self) -> int:
        """Destroys keys that no identity has: of enrolments whose process died before the row was there.

        A key that is younger than a day, or than the newest change, stays: its row may be in a database that is newer
        than a backup that was restored for a look.
        """
        if self._keys is None:
            return 0
        with self._reading() as connection:
            in_use = encrypting.select_key_ids(connection)
            newest = change_rows.select_newest_change(connection)
        if newest is None:
            return 0
        latest = min(newest, self._erasures.terms().now - LEAST_ORPHAN_AGE)
        living = self._keys.living(self._erasures.signer.store_id)
        orphans = [key_id for key_id, made_at in living.items() if key_id not in in_use and made_at < latest]
        if orphans:
            self._keys.destroy(orphans)
            logger.warning("%d data keys that no identity has were destroyed", len(orphans))
        return len(orphans)
