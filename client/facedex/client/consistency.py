"""Whether a server's store and index agree."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConsistencyFinding:
    """One difference: its kind, the template that it concerns or None, what differs, and what mends it."""

    fault: str
    template_id: int | None
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """What an examination of a gallery found.

    `revision` is the one of the store that was examined. `findings` names 100 differences of a kind at most, `counts` tells
    how many there are of each; both are empty where everything agrees.
    """

    gallery: str
    revision: int
    template_count: int
    duration_seconds: float
    findings: tuple[ConsistencyFinding, ...]
    counts: Mapping[str, int]

    @property
    def is_consistent(self) -> bool:
        return not self.counts
