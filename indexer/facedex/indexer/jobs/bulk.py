"""Bulk enrolment that goes on exactly where it was killed."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Self, TypeVar

from facedex.indexer.enroller import PreparedRequest, no_checkpoint
from facedex.indexer.enrolment import Enrol, EnrolOutcome, EnrolReason, EnrolResult, Finding, VectorItem
from facedex.indexer.errors import InvalidArgument, JobTaken, StoreUnavailable
from facedex.indexer.jobs.bulk_item import ItemRefused
from facedex.indexer.jobs.look_ahead import LookAhead
from facedex.indexer.jobs.resuming import ended_in_order, resumed_or_begun
from facedex.indexer.jobs.runner import HEARTBEAT_SECONDS
from facedex.indexer.store.records import BulkFinding, JobState, LedgerMark

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from facedex.indexer.enroller import Enroller
    from facedex.indexer.jobs.bulk_item import BulkItem, BulkSource, Survey
    from facedex.indexer.store.records import JobRecord
    from facedex.indexer.store.store import Store

# Items of one transaction, at fixed positions of the source, so that a second run makes the same transactions.
GROUP_ITEMS = 32
# Items whose photographs are asked for together; a tar's are in memory meanwhile.
ASKED_AT_ONCE = 8
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
# How soon a cancelled enrolment notices it.
LOOK_SECONDS = 0.3


Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of one item."""

    item: BulkItem
    result: EnrolResult


@dataclass(frozen=True, slots=True)
class _Unseen:
    """An item, and digest of photograph → template of its identity."""

    item: BulkItem
    known: Mapping[str, int]


def findings_of(result: EnrolResult, position: int) -> list[BulkFinding]:
    """What was noticed about the item at a position."""
    return [
        BulkFinding(position, finding in result.refusals, finding.reason.value, finding.message)
        for finding in (*result.refusals, *result.warnings)
    ]


class BulkEnrolment:
    """Enrols the items of a source in order, a group a transaction, with a mark in the store of how far it is.

    Photographs are looked at by several threads ahead of the writing; no more than a few groups are in memory. What is
    written depends on what stands in the source before, never on when a process was killed: after a kill, the same call
    leaves the templates that an undisturbed run leaves.
    """

    def __init__(self, store: Store, enroller: Enroller, *, workers: int) -> None:
        self._store = store
        self._enroller = enroller
        self._workers = workers

    def begin(self, gallery: str, survey: Survey) -> JobRecord:
        """The unfinished enrolment of the source that was surveyed, or a new one.

        Raises:
            JobTaken: a process that lives is at it.

        """
        return resumed_or_begun(self._store, gallery, {"source": survey.digest, "items": survey.count})

    def run(self, job: JobRecord, source: BulkSource) -> Generator[list[BulkOutcome]]:
        """Yields each group when it is enrolled. Interrupted or closed, the job waits for the same call.

        Raises:
            JobTaken: it was cancelled, or another process has it.
            InvalidArgument: the source cannot be read to its end.

        """
        ledger = _Ledger(self._store, job)
        with (
            ended_in_order(self._store, job, lambda: ledger.counts),
            _Watch(self._store, job) as watch,
            closing(self._prepared(source.items(), skipped=job.position, checkpoint=watch.checkpoint)) as groups,
        ):
            for group in groups:
                yield self._enrolled(group, ledger)

    def rehearse(self, source: BulkSource) -> Generator[list[BulkOutcome]]:
        """What would become of each item, as far as that can be told without enrolling the others."""
        with closing(self._prepared(source.items(), skipped=0, checkpoint=no_checkpoint)) as groups:
            for group in groups:
                results = iter(
                    self._enroller.rehearse([each for _, each in group if isinstance(each, PreparedRequest)])
                )
                yield [
                    BulkOutcome(item, each if isinstance(each, EnrolResult) else next(results)) for item, each in group
                ]

    # Looking

    def _prepared(
        self, items: Iterator[BulkItem], *, skipped: int, checkpoint: Callable[[], None]
    ) -> Generator[list[tuple[BulkItem, PreparedRequest | EnrolResult]]]:
        """Groups in order, looked at ahead. Raises what `checkpoint` raises."""
        rest = islice(_interruptible(items, checkpoint), skipped, None)
        with LookAhead(
            self._with_known(rest),
            look=lambda each: self._look(each, checkpoint),
            kept=lambda each: each.item.without_content(),
            workers=self._workers,
            checkpoint=checkpoint,
        ) as looked:
            while group := list(islice(looked, GROUP_ITEMS)):
                yield group

    def _with_known(self, items: Iterator[BulkItem]) -> Iterator[_Unseen]:
        """Asks for a few at once, since asking costs as much for one."""
        while few := list(islice(items, ASKED_AT_ONCE)):
            names = {each.details.external_id for each in few}
            known = _patiently(partial(self._enroller.known_sources, names))
            yield from (_Unseen(each, known.get(each.details.external_id, {})) for each in few)

    def _look(self, unseen: _Unseen, checkpoint: Callable[[], None]) -> PreparedRequest | EnrolResult:
        item = unseen.item
        try:
            content = item.read()
        except OSError as error:
            return _refused(EnrolReason.IMAGE_UNREADABLE, f"the file cannot be read: {error.strerror}")
        except ItemRefused as refusal:
            return _refused(refusal.why, refusal.problem)
        try:
            request = Enrol(item.details, (content,))
            return _patiently(lambda: self._enroller.prepare(request, known=unseen.known, checkpoint=checkpoint))
        except InvalidArgument as error:
            kind = EnrolReason.VECTOR_INVALID if isinstance(content, VectorItem) else EnrolReason.IMAGE_UNREADABLE
            return _refused(kind, str(error))

    # Writing

    def _enrolled(
        self, group: Sequence[tuple[BulkItem, PreparedRequest | EnrolResult]], ledger: _Ledger
    ) -> list[BulkOutcome]:
        requests = [each for _, each in group if isinstance(each, PreparedRequest)]
        refused = {place: each for place, (_, each) in enumerate(group) if isinstance(each, EnrolResult)}

        def mark(results: Sequence[EnrolResult]) -> LedgerMark:
            enrolled = iter(results)
            return ledger.mark([refused[place] if place in refused else next(enrolled) for place in range(len(group))])

        # Where the answer to a commit is lost, the ledger tells whether it was one.
        answers = _patiently(lambda: self._enroller.commit(requests, mark=mark), may_repeat=ledger.is_where_it_was)
        enrolled = iter(each.results[0] for each in answers)
        results = [refused[place] if place in refused else next(enrolled) for place in range(len(group))]
        ledger.move(results)
        return [BulkOutcome(item, result) for (item, _), result in zip(group, results, strict=True)]


class _Ledger:
    """Where a bulk enrolment stands."""

    def __init__(self, store: Store, job: JobRecord) -> None:
        self._store = store
        self._job = job
        self._position = job.position
        self.counts = {each.value: int((job.result or {}).get(each.value, 0)) for each in EnrolOutcome}

    def mark(self, results: Sequence[EnrolResult]) -> LedgerMark:
        """The ledger after these items."""
        findings = (findings_of(each, self._position + place) for place, each in enumerate(results))
        return LedgerMark(
            job=self._job,
            before=self._position,
            position=self._position + len(results),
            total=int(self._job.arguments["items"]),
            counts=self._counted(results),
            findings=tuple(chain.from_iterable(findings)),
        )

    def is_where_it_was(self) -> bool:
        """Whether what was marked last was not committed."""
        return self._store.job(self._job.id).position == self._position

    def move(self, results: Sequence[EnrolResult]) -> None:
        self.counts = self._counted(results)
        self._position += len(results)

    def _counted(self, results: Sequence[EnrolResult]) -> dict[str, int]:
        return {
            each.value: self.counts[each.value] + sum(result.outcome is each for result in results)
            for each in EnrolOutcome
        }


class _Watch:
    """Looks at a job's row while its items are worked on: shows that its process lives, and notices when it is to stop.

    Without it, a group of large photographs would be looked at to its end before anybody learnt of a cancellation.
    """

    def __init__(self, store: Store, job: JobRecord) -> None:
        self._store = store
        self._job = job
        self._is_lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def checkpoint(self) -> None:
        """Raises JobTaken where the job was cancelled, or is another process's."""
        if self._is_lost:
            raise JobTaken(self._job.id)

    def _run(self) -> None:
        while not (self._is_lost or self._ended.wait(LOOK_SECONDS)):
            with suppress(StoreUnavailable):
                self._is_lost = not self._goes_on()

    def _goes_on(self) -> bool:
        job = self._store.job(self._job.id)
        if job.cancel_requested or (job.state, job.owner) != (JobState.RUNNING, self._job.owner):
            return False
        # Each group that is written is a sign of life too.
        is_silent = (self._store.now() - job.heartbeat_at).total_seconds() >= HEARTBEAT_SECONDS
        return self._store.report_progress(job, job.progress) if is_silent else True


def _interruptible(items: Iterator[BulkItem], checkpoint: Callable[[], None]) -> Iterator[BulkItem]:
    """The same items; passing over those that are done may take long, too."""
    for item in items:
        checkpoint()
        yield item


def _refused(reason: EnrolReason, message: str) -> EnrolResult:
    return EnrolResult(EnrolOutcome.REFUSED, refusals=(Finding(reason, message),))


def _patiently(work: Callable[[], Outcome], *, may_repeat: Callable[[], bool] = lambda: True) -> Outcome:
    """Again where the database could not be reached; whether it may be done again is asked as patiently."""
    for seconds in RETRY_SECONDS:
        try:
            return work()
        except StoreUnavailable:
            time.sleep(seconds)
            if not _patiently(may_repeat):
                raise
    return work()
