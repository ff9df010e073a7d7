from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from facedex.indexer.audit import (
    LOCAL,
    NOTHING_PRUNED,
    RESTORED,
    AuditEntry,
    AuditEvent,
    AuditFault,
    AuditFinding,
    AuditHead,
    AuditReport,
    Examination,
    pruning,
)
from facedex.indexer.errors import AuditNotWhole
from facedex.indexer.store import audit_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection

    from facedex.indexer.store.audit_witness import AuditWitness, Testimony
    from facedex.indexer.store.erasures import Erasures

    Transaction = Callable[[], AbstractContextManager[Connection]]
    Append = Callable[[Connection, Sequence[AuditEvent]], None]

KEY = "audit witness"
PER_READ = 10_000
# Entries that are pruned in one transaction: whoever appends waits for it.
PRUNED_AT_ONCE = 50_000


class AuditLog:
    """The audit of an installation: entries are appended, and never changed.

    Whoever appends locks the head, so that all servers over one database write one chain. After a transaction, or a few of
    them, `testify` notes the head in the witness, outside the database; a crash before that leaves the witness behind, which
    proves nothing wrong.
    """

    def __init__(
        self,
        *,
        reading: Transaction,
        writing: Transaction,
        one_moment: Transaction,
        clock: Callable[[], datetime],
        erasures: Erasures,
        witness: AuditWitness | None,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._one_moment = one_moment
        self._clock = clock
        self._erasures = erasures
        self._witness = witness
        self._is_compared = False
        self._comparing = threading.Lock()
        self._heads = threading.Lock()
        self._newest = self._told = NOTHING_PRUNED

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Writes entries and notes the head in the witness; when it returns, both are on disk. Raises StoreUnavailable."""
        self.write(events)
        self.testify()

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Writes entries; when it returns, they are on disk. The witness knows nothing of them until `testify`."""
        with self.beside_a_change() as append, self._writing() as connection:
            append(connection, events)

    @contextmanager
    def beside_a_change(self) -> Generator[Append]:
        """Around a transaction that changes something: what it is given appends entries within that transaction.

        Appending locks the audit, so it comes last. Where the transaction fails, there are no entries.
        """
        with self._comparing:
            if not self._is_compared:
                self._note_restored()
                self._is_compared = True
        heads: list[AuditHead] = []
        yield lambda connection, events: heads.append(self._appended(connection, events))
        for head in heads:
            self._note(head)

    def testify(self) -> None:
        """Notes the last head of what was written here in the witness; when it returns, that is on disk.

        Raises:
            StoreUnavailable: that is done at the next call.

        """
        with self._heads:
            head = self._newest
        if self._witness is None or head.number <= self._told.number:
            return
        self._witness.note(self._store_id, head, self._key)
        self._told = head

    def _appended(self, connection: Connection, events: Sequence[AuditEvent]) -> AuditHead:
        with self._heads:
            known = self._newest
        return audit_rows.append(connection, events, known=known)

    def _note(self, head: AuditHead) -> None:
        with self._heads:
            self._newest = max(self._newest, head, key=lambda each: each.number)

    def head(self) -> AuditHead:
        with self._reading() as connection:
            return audit_rows.select_head(connection)

    def entries(self) -> Iterator[AuditEntry]:
        """All entries in order, as they are now."""
        with self._one_moment() as connection:
            yield from _all_entries(connection)

    def documents(self) -> Iterator[dict[str, object]]:
        """All entries as documents; where some were pruned, the anchor comes first, so that the chain can be checked."""
        with self._one_moment() as connection:
            anchor = audit_rows.select_anchor(connection)
            if anchor != NOTHING_PRUNED:
                yield {"pruned": anchor.number, "hash": anchor.hash.hex()}
            for entry in _all_entries(connection):
                yield entry.document()

    def anchor(self) -> AuditHead:
        """The last entry that was pruned: what the hash of the first one that there is follows on."""
        with self._reading() as connection:
            return audit_rows.select_anchor(connection)

    def prune(self, before: datetime) -> int:
        """Takes out the oldest entries, those of before a moment, and returns how many they were.

        What the chain begins with then is kept, in an entry of the chain and in the witness. An entry that tells of a
        restored backup is told again.

        Raises:
            AuditNotWhole: something is wrong with the audit, and pruning would hide it.

        """
        faults = [each for each in self.examined().findings if each.fault is not AuditFault.RESTORED]
        if faults:
            raise AuditNotWhole(faults[0].fault.value, faults[0].number)
        count, newest = 0, self.head().number  # what pruning itself writes stays
        while pruned := self._prune_some(before, newest):
            count += pruned
        return count

    def _prune_some(self, before: datetime, newest: int) -> int:
        with self._writing() as connection:
            audit_rows.locked_head(connection)
            last = audit_rows.last_before(connection, before, newest=newest, at_most=PRUNED_AT_ONCE)
            if last is None:
                return 0
            count = last.number - audit_rows.select_anchor(connection).number
            restored = audit_rows.delete_up_to(connection, last)
            if self._witness is not None:
                # Before it is committed: a witness that knows of more than was pruned accuses nobody.
                self._witness.note_anchor(self._store_id, last, self._key)
            head = self._appended(connection, [*restored, pruning(self._clock(), last)])
        self._note(head)
        self.testify()
        return count

    def newest(
        self,
        *,
        limit: int,
        key_id: str | None = None,
        gallery: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
    ) -> list[AuditEntry]:
        """The newest entries, the newest first; with these values where they are given."""
        with self._reading() as connection:
            return audit_rows.select_newest(
                connection, limit=limit, key_id=key_id, gallery=gallery, action=action, since=since
            )

    def examined(self, *, seen_before: AuditHead | None = None) -> AuditReport:
        """Looks at every entry, and compares with the witness, and with a head that somebody wrote down elsewhere."""
        # The witness first: what is written meanwhile is behind it.
        testimony, anchor = self._testimony(), self._noted_anchor()
        genuine = [] if testimony is None or not testimony.is_genuine else [testimony.head]
        witnesses = (*genuine, *([] if seen_before is None else [seen_before]))
        with self._one_moment() as connection:
            examination = Examination(witnesses, audit_rows.select_anchor(connection))
            for entry in _all_entries(connection):
                examination.look_at(entry)
            report = examination.report(audit_rows.select_head(connection))
        if testimony is None:
            return report
        beside = (*_faults_of_head(testimony), *_faults_of_anchor(anchor, report.anchor))
        return replace(report, findings=(*report.findings, *beside))

    def _note_restored(self) -> None:
        """Where the witness has seen entries that are not there, an entry says so, and the chain goes on from it."""
        testimony = self._testimony()
        if testimony is None or (testimony.is_genuine and self._holds(testimony)):
            return
        seen = testimony.head
        kind = "was seen" if testimony.is_genuine else "was noted, and is not genuine"
        with self._writing() as connection:
            event = AuditEvent(self._clock(), LOCAL, RESTORED, outcome=f"{seen.number}:{seen.hash.hex()[:16]} {kind}")
            head = self._appended(connection, [event])
        if self._witness is not None:
            self._witness.replace(self._store_id, head, self._key)

    def _holds(self, testimony: Testimony) -> bool:
        seen = testimony.head
        with self._reading() as connection:
            anchor = audit_rows.select_anchor(connection)
            if seen.number <= anchor.number:  # pruned beside another data folder, or the first of all
                return seen.number < anchor.number or seen.hash == anchor.hash
            return audit_rows.select_hash(connection, seen.number) == seen.hash

    def _testimony(self) -> Testimony | None:
        return None if self._witness is None else self._witness.testimony(self._store_id, self._key)

    def _noted_anchor(self) -> Testimony | None:
        return None if self._witness is None else self._witness.anchor(self._store_id, self._key)

    @property
    def _store_id(self) -> str:
        return self._erasures.signer.store_id

    @cached_property
    def _key(self) -> bytes:
        return self._erasures.secret(KEY)


def _faults_of_head(testimony: Testimony) -> Iterator[AuditFinding]:
    if not testimony.is_genuine:
        yield AuditFinding(AuditFault.WITNESS_FORGED, testimony.head.number, "the head noted outside is not genuine")


def _faults_of_anchor(noted: Testimony | None, anchor: AuditHead) -> Iterator[AuditFinding]:
    """What a witness says of an anchor. One that knows of a later one stands beside an older copy of the database."""
    if noted is not None and not noted.is_genuine:
        yield AuditFinding(AuditFault.WITNESS_FORGED, noted.head.number, "what it says was pruned is not genuine")
        return
    known = NOTHING_PRUNED if noted is None else noted.head
    if known.number < anchor.number or (known.number == anchor.number and known.hash != anchor.hash):
        detail = (
            f"the entries up to {anchor.number} were pruned, but not by 'facedex-index audit prune' beside this data "
            "folder; or its journal is not the one of then"
        )
        yield AuditFinding(AuditFault.PRUNED, anchor.number, detail)


def _all_entries(connection: Connection) -> Iterator[AuditEntry]:
    after = 0
    while page := audit_rows.select_entries(connection, after=after, limit=PER_READ):
        yield from page
        after = page[-1].number
