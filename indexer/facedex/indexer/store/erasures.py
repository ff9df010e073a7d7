"""Erasures after their transaction: journal, receipt, replay after a restore, and the last copies."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from facedex.indexer.errors import ErasureNotFound, StoreUnavailable
from facedex.indexer.failpoints import Reached, Step
from facedex.indexer.store import change_rows, erasing, erasure_rows, gallery_rows
from facedex.indexer.store.erasing import ErasureTerms
from facedex.indexer.store.purging import checkpoint, is_sqlite, vacuum
from facedex.indexer.store.receipts import Receipt, Signer
from facedex.indexer.store.schema import gallery, identity, template
from facedex.indexer.store.tombstones import ErasureReason, ErasureRecord, KeyedHash, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.vault import Vault

    Transaction = Callable[[], AbstractContextManager[Connection]]

logger = logging.getLogger(__name__)

DEFAULT_HORIZON = timedelta(days=1)
SIGNING_KEY = "erasure receipts"
HASH_KEY = "erasure hashes"
PER_TRANSACTION = 1_000


class Erasures:
    """Completes each erasure: rows go, the journal knows it, its data key goes, there is a receipt, copies go.

    In that order, so that after a crash at any point a receipt is never a promise that the next start cannot keep: what
    has a tombstone and no receipt is completed by `recover`.
    """

    def __init__(  # noqa: PLR0913  (what a store shares with it)
        self,
        engine: Engine,
        *,
        digester: Callable[[str], TemplateDigester],
        reading: Transaction,
        writing: Transaction,
        clock: Callable[[], datetime],
        vault: Vault,
        horizon: timedelta,
        reached: Reached,
    ) -> None:
        self._engine = engine
        self._digester = digester
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._journal = vault.journal
        self._keys = vault.keys
        self._horizon = horizon
        self._reached = reached

    @cached_property
    def signer(self) -> Signer:
        return Signer(self.secret(SIGNING_KEY))

    @cached_property
    def keyed_hash(self) -> KeyedHash:
        return KeyedHash(self.secret(HASH_KEY))

    @property
    def horizon(self) -> timedelta:
        return self._horizon

    def secret(self, name: str) -> bytes:
        """A random key of this installation, made on first use."""
        with self._reading() as connection:
            value = change_rows.select_secret(connection, name)
        return self._new_secret(name) if value is None else value

    def _new_secret(self, name: str) -> bytes:
        with self._writing() as connection:
            value = change_rows.select_secret(connection, name)  # another process may have been faster
            if value is None:
                value = secrets.token_bytes(32)
                change_rows.insert_secret(connection, name, value)
            return value

    def terms(self, reason: ErasureReason = ErasureReason.REQUESTED) -> ErasureTerms:
        """What holds for an erasure that is made now."""
        now = self._clock()
        return ErasureTerms(self.signer.store_id, self.keyed_hash, self._digester, now, now + self._horizon, reason)

    # From a tombstone to a receipt

    def complete(self, tombstone: Tombstone) -> str:
        """The receipt of an erasure whose rows are gone."""
        self._reached(Step.BEFORE_JOURNAL)
        if self._journal is not None:
            self._journal.note([tombstone])
        if self._keys is not None and tombstone.key_ids:
            self._keys.destroy(tombstone.key_ids)
        self._reached(Step.BEFORE_RECEIPT)
        receipt = self.signer.receipt(tombstone, on_postgresql=not is_sqlite(self._engine))
        with self._writing() as connection:
            erasure_rows.update_receipt(connection, tombstone.erasure_id, receipt)
        return receipt

    def recover(self) -> int:
        """What a start owes: completes what a dead process began, and erases anew what a restored backup brought back.

        Returns how many erasures a restored database did not know.
        """
        # Both keys are made now, so that the oldest backup has them.
        _ = self.signer, self.keyed_hash
        replayed = self._replay()
        self.complete_all()
        self._note_missing()
        return replayed

    def complete_all(self) -> None:
        """Completes erasures whose process died before there was a receipt."""
        with self._reading() as connection:
            incomplete = erasure_rows.select_incomplete(connection)
        for tombstone in incomplete:
            self.complete(tombstone)

    def _replay(self) -> int:
        journal = self._journal
        if journal is None:
            return 0
        unknown = journal.erasure_ids() - self._known()
        replayed = [self._replay_one(each) for each in journal.tombstones(unknown)]
        if any(replayed):
            logger.warning(
                "an older database was restored: %d erasures that it did not know were done again", sum(replayed)
            )
        return sum(replayed)

    def _replay_one(self, tombstone: Tombstone) -> bool:
        is_own = tombstone.store_id == self.signer.store_id
        tombstone = replace(tombstone, store_id=self.signer.store_id)
        with self._writing() as connection:
            found = gallery_rows.locked_gallery(connection, tombstone.gallery_id)
            was_back = erasing.replay(connection, self.terms(tombstone.reason), found, tombstone)
            # Another process may have done so since it was looked for.
            if is_own and not was_back and erasure_rows.select_erasure(connection, tombstone.erasure_id) is None:
                erasure_rows.insert_tombstone(connection, tombstone)
            return was_back

    def _note_missing(self) -> None:
        # A journal that is new, or whose server was not the one that erased.
        if self._journal is None:
            return
        unnoted = sorted(self._known() - self._journal.erasure_ids())
        for start in range(0, len(unnoted), PER_TRANSACTION):
            with self._reading() as connection:
                tombstones = erasure_rows.select_tombstones(connection, unnoted[start : start + PER_TRANSACTION])
            self._journal.note(tombstones)

    def _known(self) -> set[str]:
        with self._reading() as connection:
            return erasure_rows.select_erasure_ids(connection)

    # What is known of them

    def get(self, erasure_id: str) -> ErasureRecord:
        """Raises ErasureNotFound."""
        with self._reading() as connection:
            record = erasure_rows.select_erasure(connection, erasure_id)
        if record is None:
            raise ErasureNotFound
        return record

    def page(
        self, *, before: ErasureRecord | None = None, limit: int = 100, galleries: frozenset[str] | None = None
    ) -> list[ErasureRecord]:
        """Erasures, the newest first; in galleries of these names, None: in all."""
        place = None if before is None else (before.tombstone.erased_at, before.tombstone.erasure_id)
        with self._reading() as connection:
            return erasure_rows.select_erasures(connection, before=place, limit=limit, galleries=galleries)

    def forbids(self, gallery_id: int, external_id: str, *, exported_at: datetime) -> bool:
        """Whether an import must leave somebody out: erased from this gallery after the export was made."""
        with self._reading() as connection:
            hashed = self.keyed_hash.of_identity(external_id)
            return erasure_rows.select_erased_since(connection, gallery_id, hashed, exported_at)

    def verified(self, receipt: str) -> Receipt:
        """What a receipt of this installation says. Raises ReceiptInvalid."""
        return Receipt.of(receipt, self.signer.public_key)

    def held_rows(self, receipt: Receipt) -> list[str]:
        """Which rows of what was erased are in the database, in words."""
        numbered = [(gallery, number) for number in receipt.gallery_numbers]
        numbered += [(identity, number) for number in receipt.identity_numbers]
        numbered += [(template, number) for number in receipt.template_numbers]
        with self._reading() as connection:
            return [
                f"the row of {table.name} {number}"
                for table, number in numbered
                if erasure_rows.count_held(connection, table, number, until=receipt.erased_at)
            ]

    # The last copies

    def unpurged(self) -> list[Tombstone]:
        """Erasures of which the data folder may still hold copies, the oldest first."""
        with self._reading() as connection:
            return erasure_rows.select_unpurged(connection)

    def is_due(self, unpurged: Collection[Tombstone]) -> bool:
        """Half of the horizon of the oldest has passed: time to write the database anew, at most twice in a horizon."""
        now = self._clock()
        return any(now >= each.erased_at + (each.horizon_at - each.erased_at) / 2 for each in unpurged)

    def cut_log(self) -> bool:
        """Empties SQLite's write-ahead log, which holds rows as they were; False where somebody is in the way."""
        try:
            return checkpoint(self._engine)
        except StoreUnavailable as error:
            logger.info("the write-ahead log is cut later: %s", error.cause)
            return False

    def _cut_key_log(self) -> bool:
        return self._keys is None or self._keys.cut_log()

    def still_has_keys(self, erasure_id: str) -> bool:
        """Whether a data key of what was erased can still be read."""
        with self._reading() as connection:
            record = erasure_rows.select_erasure(connection, erasure_id)
        return bool(record and self._keys and self._keys.keys(record.tombstone.key_ids))

    def purge(self, unpurged: Collection[Tombstone]) -> bool:
        """Removes what is left of these from the database, and notes it; False where somebody is in the way."""
        try:
            vacuum(self._engine)
            self._reached(Step.AFTER_VACUUM)
        except StoreUnavailable as error:
            logger.info("the database is written anew later: %s", error.cause)
            return False
        if not (self.cut_log() and self._cut_key_log()):
            return False
        with self._writing() as connection:
            erasure_rows.update_purged(connection, [each.erasure_id for each in unpurged], now=self._clock())
        return True
