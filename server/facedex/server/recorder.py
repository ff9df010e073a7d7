"""What the audit says of a call: who, what, where, and what came out; taken from requests and answers, by their fields."""

from __future__ import annotations

import enum
import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc

from facedex.indexer.audit import LONGEST_OUTCOME, AuditEvent
from facedex.indexer.galleries import GALLERY_NAME
from facedex.server.access import Caller, NotKnown, Recorded, Rule
from facedex.server.status import failure_of
from facedex.v1 import enrolment_pb2, identification_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from datetime import datetime

    from facedex.indexer.enroller import EventsOf
    from facedex.indexer.enrolment import Enrolment
    from facedex.server.audit_writer import AuditWriter

# Of health, and of methods that nobody may call.
UNKNOWN = Rule(frozenset(), recorded=Recorded.NOT)
NO_OUTCOMES: Mapping[str, int] = MappingProxyType({})
# Who has no key is counted, and an entry each second tells how many; else anybody could fill the disk.
NOBODY_EVERY_SECONDS = 1.0


class AuditChoice(enum.Enum):
    """When there is an audit."""

    WITH_KEYS = "with keys"  # as soon as callers need keys
    ALWAYS = "always"
    NEVER = "never"


@dataclass(slots=True)
class Record:
    """A call while it is answered."""

    action: str
    rule: Rule
    caller: Caller | None = None
    galleries: deque[str] = field(default_factory=deque[str])
    gallery: str = ""
    answer: Any = None
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])
    has_entry: bool = False

    def asked(self, request: Any) -> None:
        """What is asked; of a stream, each request, in order."""
        name = "" if self.rule.gallery is None else self.rule.gallery(request)
        # What is no name of a gallery may be anything, and does not belong into the audit.
        self.gallery = name if GALLERY_NAME.fullmatch(name) else ""
        self.galleries.append(self.gallery)

    def note_answer(self, answer: Any) -> None:
        """What is answered: the one answer, or one of a stream."""
        self.answer, self.outcomes = answer, outcomes_of(answer)

    def oldest_gallery(self) -> str:
        """The gallery of the oldest request of a stream that has no answer yet, and now has one."""
        return self.galleries.popleft() if self.galleries else ""


class Recorder:
    """Writes an entry for each call and for each answer of a stream, as the rule of the method says.

    What changes something, or hands out what is held of a person, is on disk before it is answered; searches, readings,
    refusals, and each answer of a stream a moment later.
    """

    def __init__(
        self, writer: AuditWriter, rules: Mapping[str, Rule], *, choice: AuditChoice, now: Callable[[], datetime]
    ) -> None:
        self._writer = writer
        self._rules = rules
        self._choice = choice
        self._now = now
        self._nobody: Counter[tuple[str, str]] = Counter()
        self._nobody_told_at: datetime | None = None
        self._records: dict[grpc.ServicerContext, Record] = {}
        self._counting = threading.Lock()

    @contextmanager
    def recording(self, method: str, context: grpc.ServicerContext) -> Generator[Record]:
        """Around a call. Raises AuditUnavailable before anything is done, or where a change could not be written down."""
        record = Record(_action(method), self._rules.get(method, UNKNOWN))
        self.require(record)
        self._records[context] = record
        try:
            yield record
        except NotKnown as error:
            self._count_nobody(record, error)
            raise
        except Exception as error:
            self._note_failure(record, "CANCELLED" if isinstance(error, grpc.RpcError) else failure_of(error).reason)
            raise
        finally:
            del self._records[context]
        if record.answer is not None and not record.has_entry:
            self._record(record, record.gallery, is_first=record.rule.recorded is Recorded.BEFORE_ANSWER)

    def require(self, record: Record) -> None:
        """Raises AuditUnavailable where what is asked next could not be written down."""
        if record.rule.recorded is not Recorded.NOT and self._choice is not AuditChoice.NEVER:
            self._writer.require()

    def events_of_change(self, context: grpc.ServicerContext) -> EventsOf | None:
        """What the audit says of what a call enrols, for the transaction that enrols it; None where it says nothing.

        Then the entry is there if the change is, whatever happens to the server, and costs no transaction of its own.
        """
        record = self._records[context]
        if not self._is_on(record.caller):
            return None

        def events(answers: Sequence[Enrolment]) -> list[AuditEvent]:
            record.has_entry = True
            return [self._event(record, record.gallery, _enrolled(each), revision=each.revision) for each in answers]

        return events

    def answered(self, record: Record, gallery: str) -> None:
        """Of a stream: one answer, by the gallery of its request."""
        self._record(record, gallery, is_first=False)
        record.answer = None  # it has its entry

    def flush(self) -> None:
        """Notes what was only counted so far."""
        with self._counting:
            self._tell_nobody()

    def _is_on(self, caller: Caller | None) -> bool:
        if self._choice is AuditChoice.WITH_KEYS:
            return caller is not None and caller.key is not None
        return self._choice is AuditChoice.ALWAYS

    def _record(self, record: Record, gallery: str, *, is_first: bool) -> None:
        if record.rule.recorded is Recorded.NOT or not self._is_on(record.caller):
            return
        answer = record.answer
        event = self._event(record, gallery, _outcome(record), threshold=_threshold(answer), revision=_revision(answer))
        if is_first:
            self._writer.write(event)
        else:
            self._writer.note(event)

    def _note_failure(self, record: Record, reason: str) -> None:
        if self._is_on(record.caller):
            self._writer.note(self._event(record, record.gallery, reason))

    def _count_nobody(self, record: Record, error: NotKnown) -> None:
        if self._choice is AuditChoice.NEVER:
            return
        with self._counting:
            self._nobody[record.action, error.reason] += 1
            told_at = self._nobody_told_at
            if told_at is None or (self._now() - told_at).total_seconds() >= NOBODY_EVERY_SECONDS:
                self._tell_nobody()

    def _tell_nobody(self) -> None:
        now = self._now()
        for (action, reason), count in self._nobody.items():
            self._writer.note(AuditEvent(now, "", action, outcome=f"{reason} {count}"))
        self._nobody.clear()
        self._nobody_told_at = now

    def _event(
        self, record: Record, gallery: str, outcome: str, *, threshold: float | None = None, revision: int | None = None
    ) -> AuditEvent:
        key_id = "" if record.caller is None else record.caller.key_id
        return AuditEvent(self._now(), key_id, record.action, gallery, outcome[:LONGEST_OUTCOME], threshold, revision)


def _outcome(record: Record) -> str:
    """What came out, in the API's own words and with counts: never who."""
    if isinstance(record.answer, enrolment_pb2.RequestError):
        return record.answer.reason
    return _in_words(record.outcomes)


def _enrolled(answer: Enrolment) -> str:
    return _in_words(_counted(each.outcome.name for each in answer.results))


def _in_words(outcomes: Mapping[str, int]) -> str:
    return ", ".join([f"{name} {count}" for name, count in sorted(outcomes.items())]) or "OK"


def outcomes_of(answer: Any) -> Mapping[str, int]:
    """How often which decision or outcome of enrolment; empty for other answers."""
    if isinstance(answer, identification_pb2.IdentifyResponse):
        return _counted(_decision(each.decision) for each in answer.faces) or {"NO_FACE": 1}
    if isinstance(answer, identification_pb2.VerifyResponse):
        return _counted([_decision(answer.decision)])
    if isinstance(answer, enrolment_pb2.EnrolResponse):
        return _counted(_enrol_outcome(each.outcome) for each in answer.results)
    return NO_OUTCOMES


def _decision(value: identification_pb2.Decision.ValueType) -> str:
    return identification_pb2.Decision.Name(value).removeprefix("DECISION_")


def _enrol_outcome(value: enrolment_pb2.EnrolOutcome.ValueType) -> str:
    return enrolment_pb2.EnrolOutcome.Name(value).removeprefix("ENROL_OUTCOME_")


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}  # a Counter takes three times as long, for every call
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _threshold(answer: Any) -> float | None:
    has_point = "operating_point" in answer.DESCRIPTOR.fields_by_name and answer.HasField("operating_point")
    return float(answer.operating_point.threshold) if has_point else None


def _revision(answer: Any) -> int | None:
    return int(answer.revision) if "revision" in answer.DESCRIPTOR.fields_by_name else None


def _action(method: str) -> str:
    return method.rpartition(".")[2][:LONGEST_OUTCOME]
