"""Jobs in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from facedex.indexer.errors import JobNotFound
from facedex.indexer.store.records import DONE_BY_ITS_PROGRAM, JobRecord, JobState, as_utc
from facedex.indexer.store.schema import job

if TYPE_CHECKING:
    from datetime import datetime


def insert_job(connection: Connection, kind: str, gallery: str, arguments: dict[str, Any], *, now: datetime) -> int:
    values = {
        "kind": kind,
        "gallery": gallery,
        "arguments": arguments,
        "state": JobState.WAITING.value,
        "progress": 0.0,
        "cancel_requested": False,
        "error": "",
        "owner": "",
        "heartbeat_at": now,
        "created_at": now,
    }
    return int(connection.execute(insert(job).values(values).returning(job.c.id)).scalar_one())


def select_job(connection: Connection, job_id: int) -> JobRecord:
    row = connection.execute(select(job).where(job.c.id == job_id)).first()
    if row is None:
        raise JobNotFound(job_id)
    return _record(row)


def select_jobs(
    connection: Connection, *, before: int | None, limit: int, galleries: frozenset[str] | None = None
) -> list[JobRecord]:
    """A page of jobs, the newest first; of these galleries, None: of all."""
    query = select(job).order_by(job.c.id.desc()).limit(limit)
    query = query if galleries is None else query.where(job.c.gallery.in_(sorted(galleries)))
    rows = connection.execute(query if before is None else query.where(job.c.id < before))
    return [_record(row) for row in rows]


def claim_job(connection: Connection, owner: str, *, silent_since: datetime, now: datetime) -> JobRecord | None:
    """Takes the oldest job that waits, or whose owner has been silent, if there is one."""
    waiting = job.c.state == JobState.WAITING.value
    abandoned = and_(job.c.state == JobState.RUNNING.value, job.c.heartbeat_at < silent_since)
    free = and_(or_(waiting, abandoned), job.c.kind.not_in(DONE_BY_ITS_PROGRAM))
    found = connection.execute(select(job.c.id).where(free).order_by(job.c.id).limit(1)).scalar()
    if found is None:
        return None
    # Once more in the condition, because another process may have been faster.
    taken = {"state": JobState.RUNNING.value, "owner": owner, "heartbeat_at": now}
    if connection.execute(update(job).where(job.c.id == found, free).values(taken)).rowcount == 0:
        return None
    return select_job(connection, found)


def update_progress(connection: Connection, job_id: int, owner: str, progress: float, *, now: datetime) -> bool:
    """Notes how far a job is; False where its owner shall stop: it was cancelled, or somebody else has it."""
    wanted = and_(job.c.id == job_id, job.c.owner == owner, job.c.state == JobState.RUNNING.value)
    values = {"progress": progress, "heartbeat_at": now}
    row = connection.execute(update(job).where(wanted).values(values).returning(job.c.cancel_requested)).first()
    return row is not None and not row.cancel_requested


def finish_job(
    connection: Connection, job_id: int, owner: str, state: JobState, *, result: dict[str, Any] | None, error: str
) -> None:
    values: dict[str, Any] = {"state": state.value, "result": result, "error": error[:1000]}
    if state is JobState.DONE:
        values["progress"] = 1.0
    mine = and_(job.c.id == job_id, job.c.owner == owner, job.c.state == JobState.RUNNING.value)
    connection.execute(update(job).where(mine).values(values))


def release_job(connection: Connection, job_id: int, owner: str) -> None:
    """Gives a job back, for another process to take up at once."""
    wanted = and_(job.c.id == job_id, job.c.owner == owner, job.c.state == JobState.RUNNING.value)
    connection.execute(update(job).where(wanted).values(state=JobState.WAITING.value, owner=""))


def request_cancel(connection: Connection, job_id: int) -> None:
    """A job that waits is cancelled at once; one that is worked on is asked to stop."""
    waiting = and_(job.c.id == job_id, job.c.state == JobState.WAITING.value)
    connection.execute(update(job).where(waiting).values(state=JobState.CANCELLED.value))
    connection.execute(update(job).where(job.c.id == job_id).values(cancel_requested=True))


def _record(row: Row[Any]) -> JobRecord:
    return JobRecord(
        id=row.id,
        kind=row.kind,
        gallery=row.gallery,
        arguments=row.arguments,
        state=JobState(row.state),
        progress=row.progress,
        cancel_requested=row.cancel_requested,
        result=row.result,
        error=row.error,
        owner=row.owner,
        created_at=as_utc(row.created_at),
        heartbeat_at=as_utc(row.heartbeat_at),
        position=row.position,
    )
