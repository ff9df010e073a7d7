"""Work of this program that is marked in the ledger: taken up where it was killed, and always ended in good order."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import CallerError, JobTaken, StoreUnavailable
from facedex.indexer.jobs.cancelling import is_abandoned
from facedex.indexer.jobs.owner import this_process
from facedex.indexer.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from facedex.indexer.store.records import JobRecord
    from facedex.indexer.store.store import Store


def resumed_or_begun(store: Store, gallery: str, arguments: dict[str, Any]) -> JobRecord:
    """The unfinished work with these arguments, or new work.

    Raises:
        JobTaken: a process that lives is at it.

    """
    known = store.unfinished_bulk(gallery, arguments)
    check_free(store, known)
    return store.begin_bulk(gallery, arguments, this_process(), known=known)


def check_free(store: Store, known: JobRecord | None) -> None:
    """Raises JobTaken where a process that lives is at it."""
    if known is not None and known.state is JobState.RUNNING and not is_abandoned(known, store.now()):
        raise JobTaken(known.id)


@contextmanager
def ended_in_order(store: Store, job: JobRecord, counts: Callable[[], dict[str, int]]) -> Generator[None]:
    """Done is done; what was wrong with the source ends it; an interruption leaves it to the next who asks for the same."""
    try:
        yield
    except JobTaken:
        store.finish_job(job, JobState.CANCELLED, result=counts())  # of another owner's job: nothing
        raise
    except CallerError as error:  # the source is damaged further on
        store.finish_job(job, JobState.FAILED, result=counts(), error=str(error))
        raise
    except BaseException:
        with suppress(StoreUnavailable):  # then the job is free when this process is gone
            store.release_job(job)
        raise
    store.finish_job(job, JobState.DONE, result=counts())
