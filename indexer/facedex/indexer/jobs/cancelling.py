"""Ending a job from outside, also one whose process is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.jobs.owner import is_gone
from facedex.indexer.jobs.runner import SILENCE
from facedex.indexer.store.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from facedex.indexer.store.records import JobRecord
    from facedex.indexer.store.store import Store


def is_abandoned(job: JobRecord, now: datetime) -> bool:
    """Whether a job is noted as worked on, and its process is gone or has shown no sign of life for too long."""
    return job.state is JobState.RUNNING and (is_gone(job.owner) or now - job.heartbeat_at > SILENCE)


def cancel(store: Store, job_id: int) -> JobRecord:
    """Asks a job to stop; one that nobody works on any more is cancelled at once. What it has done stays.

    Raises:
        JobNotFound: there is none of that number.

    """
    job = store.cancel_job(job_id)
    if not is_abandoned(job, store.now()):
        return job
    store.finish_job(job, JobState.CANCELLED, result=job.result)  # if nobody took it up meanwhile
    return store.job(job_id)
