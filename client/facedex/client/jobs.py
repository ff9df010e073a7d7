"""Long-running work of a server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class JobState(StrEnum):
    """What has become of a job."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    """Said by a server newer than this client."""

    @property
    def is_final(self) -> bool:
        return self in {JobState.DONE, JobState.FAILED, JobState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Job:
    """Long-running work, which outlives a restart of the server: of a server, or a bulk enrolment of `facedex-index`.

    `progress` is 0 to 1. `result` is what came out, None until then; `error` says why it failed, for people. `owner` is
    the machine and number of the process that works on it, which last showed at `update_time` that it lives; where
    `is_abandoned`, it is gone. Of the `item_count` items of a bulk enrolment, `done_count` are dealt with;
    of a stream of enrolments, so many requests.
    """

    id: int
    kind: str
    gallery: str
    state: JobState
    progress: float
    result: Mapping[str, object] | None
    error: str
    create_time: datetime
    owner: str
    update_time: datetime
    is_abandoned: bool
    item_count: int
    done_count: int


@dataclass(frozen=True, slots=True)
class JobFinding:
    """What was noticed about one item of a bulk enrolment, or one request of a stream, by its position from 0.

    Either it was refused, or it was enrolled and somebody should have a look; `message` says why, for people.
    """

    position: int
    is_refusal: bool
    reason: str
    message: str
