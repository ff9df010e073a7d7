"""The ledger of bulk enrolments and rotations of keys. Each function works inside the caller's transaction."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from facedex.indexer.errors import JobTaken
from facedex.indexer.store import job_rows
from facedex.indexer.store.records import BulkFinding, JobRecord, JobState, LedgerMark
from facedex.indexer.store.schema import job, job_finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

LONGEST_MESSAGE = 500
FINDINGS_AT_ONCE = 1_000


def select_unfinished(connection: Connection, kind: str) -> list[JobRecord]:
    """Work of this kind, in any gallery, that was begun and not ended, the newest first."""
    states = (JobState.WAITING.value, JobState.RUNNING.value)
    wanted = (job.c.kind == kind) & job.c.state.in_(states)
    numbers = connection.execute(select(job.c.id).where(wanted).order_by(job.c.id.desc())).scalars().all()
    return [job_rows.select_job(connection, number) for number in numbers]


def take_over(connection: Connection, known: JobRecord, owner: str, *, now: datetime) -> JobRecord:
    """Makes this process the owner, unless another one was faster."""
    mine = {"owner": owner, "state": JobState.RUNNING.value, "heartbeat_at": now}
    same = (job.c.id == known.id) & (job.c.owner == known.owner) & (job.c.state == known.state.value)
    if connection.execute(update(job).where(same).values(mine)).rowcount == 0:
        raise JobTaken(known.id)
    return job_rows.select_job(connection, known.id)


def put_mark(connection: Connection, mark: LedgerMark, *, now: datetime) -> None:
    """Moves a bulk enrolment on, if it still stands where this process left it."""
    mine = (job.c.id == mark.job.id) & (job.c.owner == mark.job.owner) & (job.c.position == mark.before)
    values = {
        "position": mark.position,
        "progress": mark.position / mark.total if mark.total else 0.0,
        "result": mark.counts,
        "heartbeat_at": now,
    }
    going = mine & (job.c.state == JobState.RUNNING.value) & job.c.cancel_requested.is_(False)
    if connection.execute(update(job).where(going).values(values)).rowcount == 0:
        raise JobTaken(mark.job.id)
    rows = list(_rows(mark))
    if rows:
        connection.execute(insert(job_finding), rows)


def _rows(mark: LedgerMark) -> Iterator[dict[str, object]]:
    for position, findings in groupby(mark.findings, key=lambda each: each.position):
        for place, finding in enumerate(findings):
            yield {
                "job_id": mark.job.id,
                "position": position,
                "place": place,
                "is_refusal": finding.is_refusal,
                "reason": finding.reason,
                "message": finding.message[:LONGEST_MESSAGE],
            }


def select_findings(connection: Connection, job_id: int, *, after: int) -> list[BulkFinding]:
    """Findings in order of position, from the item behind this position on; of each item all or none, unless it is the last."""
    query = select(job_finding).where(job_finding.c.job_id == job_id, job_finding.c.position > after)
    ordered = query.order_by(job_finding.c.position, job_finding.c.place).limit(FINDINGS_AT_ONCE)
    return [BulkFinding(row.position, row.is_refusal, row.reason, row.message) for row in connection.execute(ordered)]
