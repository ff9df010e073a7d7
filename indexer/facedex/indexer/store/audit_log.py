from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from facedex.indexer.audit import (
    LOCAL,
    RESTORED,
    AuditEntry,
    AuditEvent,
    AuditFault,
    AuditFinding,
    AuditHead,
    AuditReport,
    Examination,
)
from facedex.indexer.store import audit_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection

    from facedex.indexer.store.audit_witness import AuditWitness, Testimony
    from facedex.indexer.store.erasures import Erasures

    Transaction = Callable[[], AbstractContextManager[Connection]]

KEY = "audit witness"
PER_READ = 10_000


class AuditLog:
    """The audit of an installation: entries are appended, and never changed.

    Whoever appends locks the head, so that all servers over one database write one chain. After a transaction, or a few of
    them, the head is noted in the witness, outside the database; a crash before that leaves the witness behind, which proves
    nothing wrong.
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

    def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        """Writes entries and notes the head in the witness; when it returns, both are on disk. Raises StoreUnavailable."""
        head = self.write(events)
        if events:
            self.testify(head)
        return head

    def write(self, events: Sequence[AuditEvent]) -> AuditHead:
        """Writes entries; when it returns, they are on disk. The witness knows nothing of them until `testify`."""
        if not self._is_compared:
            self._note_restored()
            self._is_compared = True
        with self._writing() as connection:
            return audit_rows.append(connection, events)

    def testify(self, head: AuditHead) -> None:
        """Notes a head in the witness, if there is one; when it returns, that is on disk. Raises StoreUnavailable."""
        if self._witness is not None:
            self._witness.note(self._store_id, head, self._key)

    def head(self) -> AuditHead:
        with self._reading() as connection:
            return audit_rows.select_head(connection)

    def entries(self) -> Iterator[AuditEntry]:
        """All entries in order, as they are now."""
        with self._one_moment() as connection:
            yield from _all_entries(connection)

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
        testimony = self._testimony()
        genuine = [] if testimony is None or not testimony.is_genuine else [testimony.head]
        examination = Examination((*genuine, *([] if seen_before is None else [seen_before])))
        with self._one_moment() as connection:
            for entry in _all_entries(connection):
                examination.look_at(entry)
            report = examination.report(audit_rows.select_head(connection))
        if testimony is None or testimony.is_genuine:
            return report
        forged = AuditFinding(AuditFault.WITNESS_FORGED, testimony.head.number, "the head noted outside is not genuine")
        return replace(report, findings=(*report.findings, forged))

    def _note_restored(self) -> None:
        """Where the witness has seen entries that are not there, an entry says so, and the chain goes on from it."""
        testimony = self._testimony()
        if testimony is None or (testimony.is_genuine and self._holds(testimony)):
            return
        seen = testimony.head
        kind = "was seen" if testimony.is_genuine else "was noted, and is not genuine"
        with self._writing() as connection:
            event = AuditEvent(self._clock(), LOCAL, RESTORED, outcome=f"{seen.number}:{seen.hash.hex()[:16]} {kind}")
            head = audit_rows.append(connection, [event])
        if self._witness is not None:
            self._witness.replace(self._store_id, head, self._key)

    def _holds(self, testimony: Testimony) -> bool:
        seen = testimony.head
        with self._reading() as connection:
            return seen.number == 0 or audit_rows.select_hash(connection, seen.number) == seen.hash

    def _testimony(self) -> Testimony | None:
        return None if self._witness is None else self._witness.testimony(self._store_id, self._key)

    @property
    def _store_id(self) -> str:
        return self._erasures.signer.store_id

    @cached_property
    def _key(self) -> bytes:
        return self._erasures.secret(KEY)


def _all_entries(connection: Connection) -> Iterator[AuditEntry]:
    after = 0
    while page := audit_rows.select_entries(connection, after=after, limit=PER_READ):
        yield from page
        after = page[-1].number
