"""New data keys for everybody, or for one gallery with a new transform, beside servers that enrol, identify and erase."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from facedex.indexer.jobs.owner import this_process
from facedex.indexer.jobs.resuming import check_free, ended_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from facedex.indexer.store.encryption import Person
    from facedex.indexer.store.records import GalleryRecord, JobRecord
    from facedex.indexer.store.store import Store

# How long a rotation rests, as a share of the time that a group took: whoever enrols is not to wait behind group after
# group, since SQLite lets in whom chance favours.
REST = 1.0


class KeyRotation:
    """A job with a mark in the ledger: killed and begun again, it goes on with those who are not done."""

    def __init__(self, store: Store, *, rest: float = REST) -> None:
        self._store = store
        self._rest = rest

    def begin(self) -> JobRecord:
        """The rotation of everybody's keys that was begun and not ended, or a new one.

        Raises:
            JobTaken: a process that lives is at it.
            DataKeysMissing: there are none.

        """
        known = self._unfinished("")
        return self._store.begin_rotation(this_process(), known=known)

    def begin_in(self, gallery: GalleryRecord, change: Callable[[GalleryRecord], object]) -> JobRecord:
        """The rotation in a gallery that was begun and not ended, or a new one after a `change` of its transform.

        Raises:
            JobTaken, DataKeysMissing: as above, and what `change` raises.

        """
        known = self._unfinished(gallery.name)
        if known is None:
            change(gallery)
        return self._store.begin_rotation(this_process(), known=known, gallery=gallery)

    def _unfinished(self, scope: str) -> JobRecord | None:
        """The rotation in a gallery, or of everybody, that was begun and not ended.

        Raises:
            JobTaken: a process that lives is at one, wherever: two at a time could give somebody two new keys, and lose
                sight of the old one.

        """
        unfinished = self._store.unfinished_rotations()
        for each in unfinished:
            check_free(self._store, each)
        return next((each for each in unfinished if each.gallery == scope), None)

    def run(self, job: JobRecord) -> Generator[Sequence[Person]]:
        """Yields each group when it is under new keys. Interrupted or closed, the job waits for the same call.

        Raises:
            JobTaken: it was cancelled, or another process has it.

        """
        with ended_in_order(self._store, job, lambda: self._counts(job)):
            started = time.perf_counter()
            for group in self._store.encryption.rotate(job):
                yield group
                time.sleep(self._rest * (time.perf_counter() - started))
                started = time.perf_counter()

    def _counts(self, job: JobRecord) -> dict[str, Any]:
        return self._store.job(job.id).result or {}
