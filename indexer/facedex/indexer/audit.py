"""The audit: who did what, when, in which gallery, with which outcome. Each entry holds the hash of the one before.

No entry holds a name, an identity's id, a photograph or a vector. The revision leads to the change log, which knows
templates and identities by numbers.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple, Self

from facedex.indexer.store.tombstones import moment_text

# The hash before the first entry.
GENESIS = bytes(32)
# Who works with facedex-index on the data folder itself.
LOCAL = "local"
# An entry of this action says that entries before it are missing: the database is an older copy of itself.
RESTORED = "audit/restored"
# An entry of this action says that those before were taken out in good order: its revision is the number of the last of them,
# and its outcome that one's hash.
PRUNED = "audit/pruned"
LONGEST_OUTCOME = 64


class AuditEvent(NamedTuple):  # a tuple, because one is made for every call, and a dataclass takes three times as long
    """What happened, before it has a number.

    `key_id` is that of the API key, empty for a caller without one; `outcome` a reason of refusal, or what came out;
    `threshold` the cosine that decided; `revision` how far the gallery's change log had been applied, or what the change got.
    """

    at: datetime
    key_id: str
    action: str
    gallery: str = ""
    outcome: str = "OK"
    threshold: float | None = None
    revision: int | None = None


# What is shown in the place of an entry that holds what was never written: something altered it.
UNREADABLE = AuditEvent(datetime(1, 1, 1, tzinfo=UTC), "", "audit/unreadable", outcome="UNREADABLE")


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The last entry: its number and hash; 0 and GENESIS where there is none."""

    number: int
    hash: bytes

    @classmethod
    def read(cls, number: object, digest: object) -> Self:
        """From a row, of which somebody may have made anything: then it is a head that no audit has."""
        return cls(number if isinstance(number, int) else -1, digest if isinstance(digest, bytes) else b"")

    def __str__(self) -> str:
        return f"{self.number}:{self.hash.hex()}"


NOTHING_PRUNED = AuditHead(0, GENESIS)


class AuditEntry(NamedTuple):
    """An event with its place in the chain."""

    number: int
    event: AuditEvent
    hash: bytes

    def document(self) -> dict[str, object]:
        return {**json.loads(_canonical(self.number, self.event)), "hash": self.hash.hex()}


def chained(events: Iterable[AuditEvent], head: AuditHead) -> list[AuditEntry]:
    """The entries that follow on a head."""
    entries: list[AuditEntry] = []
    number, previous = head.number, head.hash
    for event in events:
        number, previous = number + 1, hash_of(number + 1, event, previous)
        entries.append(AuditEntry(number, event, previous))
    return entries


def hash_of(number: int, event: AuditEvent, previous: bytes) -> bytes:
    """SHA-256 of the hash before and of the entry as canonical JSON (docs/decisions/0602)."""
    return hashlib.sha256(previous + _canonical(number, event).encode()).digest()


def _canonical(number: int, event: AuditEvent) -> str:
    # Put together by hand: an encoder takes twice as long, for every call.
    return (
        f'{{"action":{quoted(event.action)},"at":"{moment_text(event.at)}","gallery":{quoted(event.gallery)},'
        f'"key":{quoted(event.key_id)},"number":{number},"outcome":{quoted(event.outcome)},'
        f'"revision":{_number(event.revision)},"threshold":{_number(event.threshold)}}}'
    )


def _number(value: float | None) -> str:
    if value is None:
        return "null"
    if not math.isfinite(value):
        raise ValueError("not a number that JSON knows")
    return float.__repr__(value) if isinstance(value, float) else str(value)


class AuditFault(enum.Enum):
    """What may be wrong with an audit."""

    ALTERED = "altered"  # an entry is not what its hash says
    MISSING = "missing"  # entries were taken out
    UNCHECKED = "unchecked"  # follows on entries that are missing, so its hash proves nothing
    CUT_OFF = "cut-off"  # the last entries are gone
    INSERTED = "inserted"  # entries beyond the last one
    REWRITTEN = "rewritten"  # another chain than the one that was seen before
    PRUNED = "pruned"  # the first entries were taken out, and not by `audit prune`
    WITNESS_FORGED = "witness-forged"  # what was noted outside the database is not genuine
    RESTORED = "restored"  # an older copy of the database took its place, and entries are lost


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One fault, with the number of the entry where it shows."""

    fault: AuditFault
    number: int
    detail: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an examination found; `head` is the last entry that there is, `anchor` the last one that was pruned."""

    count: int
    head: AuditHead
    findings: tuple[AuditFinding, ...]
    witnesses: int
    anchor: AuditHead = NOTHING_PRUNED

    @property
    def is_whole(self) -> bool:
        return not self.findings


@dataclass(slots=True)
class Examination:
    """Looks at entries in order of their numbers, and remembers the hashes that witnesses speak of.

    The chain begins behind the `anchor`, which has to be what an entry of the chain says was pruned.
    """

    witnesses: tuple[AuditHead, ...]
    anchor: AuditHead = NOTHING_PRUNED
    head: AuditHead = field(init=False)
    count: int = 0
    findings: list[AuditFinding] = field(default_factory=list[AuditFinding])
    _seen: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _is_anchored: bool = False

    def __post_init__(self) -> None:
        self.head = self.anchor
        self._seen[self.anchor.number] = self.anchor.hash  # a witness may speak of the last one that was pruned
        self._is_anchored = self.anchor == NOTHING_PRUNED

    def look_at(self, entry: AuditEntry) -> None:
        self.findings += _faults(entry, self.head)
        self.head = AuditHead(entry.number, entry.hash)
        self.count += 1
        self._is_anchored = self._is_anchored or _anchor_of(entry.event) == self.anchor
        if any(each.number == entry.number for each in self.witnesses):
            self._seen[entry.number] = entry.hash

    def report(self, stored: AuditHead) -> AuditReport:
        """What was found, beside the head that the database keeps apart from the entries."""
        findings = [*self.findings, *_faults_at_end(self.head, stored), *self._faults_of_witnesses()]
        if not self._is_anchored:
            detail = f"the entries up to {self.anchor.number} are gone, and no entry says that they were pruned"
            findings.append(AuditFinding(AuditFault.PRUNED, self.anchor.number, detail))
        return AuditReport(self.count, self.head, tuple(findings), len(self.witnesses), self.anchor)

    def _faults_of_witnesses(self) -> Iterator[AuditFinding]:
        for witness in self.witnesses:
            if witness.number > self.head.number:
                detail = f"entry {witness.number} was seen before; the last one now is {self.head.number}"
                yield AuditFinding(AuditFault.CUT_OFF, self.head.number, detail)
            elif witness.number and self._seen.get(witness.number, witness.hash) != witness.hash:
                detail = f"entry {witness.number} had the hash {witness.hash.hex()[:16]}… when it was seen before"
                yield AuditFinding(AuditFault.REWRITTEN, witness.number, detail)


def pruning(at: datetime, anchor: AuditHead) -> AuditEvent:
    """What an entry says of the entries up to the anchor, which are taken out."""
    return AuditEvent(at, LOCAL, PRUNED, outcome=anchor.hash.hex(), revision=anchor.number)


def _anchor_of(event: AuditEvent) -> AuditHead | None:
    if event.action != PRUNED or event.revision is None:
        return None
    try:
        return AuditHead(event.revision, bytes.fromhex(event.outcome))
    except ValueError:  # somebody altered it, which its hash says
        return None


def _faults(entry: AuditEntry, before: AuditHead) -> Iterator[AuditFinding]:
    number = entry.number
    if number != before.number + 1:
        detail = f"{number - before.number - 1} entries before it are missing"
        yield AuditFinding(AuditFault.MISSING, before.number + 1, detail)
        yield AuditFinding(
            AuditFault.UNCHECKED, number, "whether it was altered cannot be told, for the one before is missing"
        )
    elif entry.event == UNREADABLE or entry.hash != hash_of(number, entry.event, before.hash):
        yield AuditFinding(AuditFault.ALTERED, number, "the entry, or the one before, is not what was written")
    if entry.event.action == RESTORED:
        yield AuditFinding(AuditFault.RESTORED, number, f"entries were lost here: {entry.event.outcome}")


def _faults_at_end(last: AuditHead, stored: AuditHead) -> Iterator[AuditFinding]:
    if last.number < stored.number:
        detail = f"{stored.number - last.number} entries at the end are missing"
        yield AuditFinding(AuditFault.CUT_OFF, last.number, detail)
    elif last.number > stored.number:
        detail = f"{last.number - stored.number} entries were put behind the last one"
        yield AuditFinding(AuditFault.INSERTED, stored.number + 1, detail)
    elif last.hash != stored.hash:
        yield AuditFinding(AuditFault.REWRITTEN, last.number, "it is not the entry that was written last")
