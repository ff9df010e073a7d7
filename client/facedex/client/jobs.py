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
    """Long-running work, which outlives a restart of the server.

    `progress` is 0 to 1. `result` is what came out, None until then; `error` says why it failed, for people.
    """

    id: int
    kind: str
    gallery: str
    state: JobState
    progress: float
    result: Mapping[str, object] | None
    error: str
    create_time: datetime
