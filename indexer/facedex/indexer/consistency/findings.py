"""What an examination of a gallery can find, and what mends it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NAMED = 100
"""Findings of a kind that are named; beyond, they are counted."""


class Remedy(Enum):
    """What mends a fault."""

    ACCEPT = (
        "the store was changed behind the server's back: restore a backup, or accept it: fsck --repair --accept-store"
    )
    REBUILD = "build the index anew from the store: fsck --repair, or rebuild"
    DROP = "drop the file: fsck --repair; the next start builds from the store"
    CLEAR = "delete it: fsck --repair"


class Fault(Enum):
    """A kind of difference, with its name and what mends it."""

    def __init__(self, label: str, remedy: Remedy) -> None:
        self.label = label
        self.remedy = remedy

    # The rows of the store
    ROW_ALTERED = "row-altered", Remedy.ACCEPT
    """A template's row does not fit its seal: vector, model or identity were changed."""
    ROW_MISATTRIBUTED = "row-misattributed", Remedy.ACCEPT
    """A template's row names another identity than the change that added it."""
    ROW_UNLOGGED = "row-unlogged", Remedy.ACCEPT
    """A template that no change added."""
    ROW_MISSING = "row-missing", Remedy.ACCEPT
    """A template that was added and never erased, and is not there."""
    ROW_RETURNED = "row-returned", Remedy.ACCEPT
    """A template that was erased, and is there again."""
    ROW_UNUSABLE = "row-unusable", Remedy.ACCEPT
    """A template of another model, another length, not finite or not of unit length."""
    ROW_UNREADABLE = "row-unreadable", Remedy.ACCEPT
    """A template whose data key is gone, as after an erasure that this database does not know."""
    ROW_UNOWNED = "row-unowned", Remedy.ACCEPT
    """A template whose identity is not there, or is of another gallery."""
    STRAY_ROWS = "stray-rows", Remedy.ACCEPT
    """Rows of a gallery that is not there."""
    GALLERY_DIGEST = "gallery-digest", Remedy.ACCEPT
    """The templates' digest is not the one that the gallery has: rows came or went."""
    CROP_UNWANTED = "crop-unwanted", Remedy.CLEAR
    """A crop in a gallery whose policy keeps none."""

    # The change log
    LOG_GAP = "log-gap", Remedy.ACCEPT
    """Numbers are missing from the change log."""
    LOG_REPEATED = "log-repeated", Remedy.ACCEPT
    """A template was added twice."""
    LOG_UNKNOWN = "log-unknown", Remedy.ACCEPT
    """A change of a kind that there is not, or that erases what was never added."""
    REVISION_WRONG = "revision-wrong", Remedy.ACCEPT
    """The gallery's counter is not the last number of its log."""

    # The index
    INDEX_AHEAD = "index-ahead", Remedy.REBUILD
    """It is at a later revision than the store: an older backup was restored below it."""
    INDEX_MISSING = "index-missing", Remedy.REBUILD
    """A template of the store that no search finds."""
    INDEX_EXTRA = "index-extra", Remedy.REBUILD
    """A template that was erased, and that a search still compares."""
    INDEX_REPEATED = "index-repeated", Remedy.REBUILD
    """A template that stands in the index twice."""
    INDEX_IDENTITY = "index-identity", Remedy.REBUILD
    """A template under another identity than in the store."""
    INDEX_VECTOR = "index-vector", Remedy.REBUILD
    """A template with another vector than in the store."""
    INDEX_CODE = "index-code", Remedy.REBUILD
    """A code of the fast scan that does not stand for its vector."""
    INDEX_COUNT = "index-count", Remedy.REBUILD
    """The index counts more or fewer templates than it holds."""
    INDEX_DIGEST = "index-digest", Remedy.REBUILD
    """Its digest is not the gallery's, at the same revision."""
    INDEX_UNBUILDABLE = "index-unbuildable", Remedy.ACCEPT
    """No index can be made of what the store holds."""

    # The snapshot
    SNAPSHOT_REJECTED = "snapshot-rejected", Remedy.DROP
    """It is damaged, foreign, or of another format, model or history."""
    SNAPSHOT_MISSING = "snapshot-missing", Remedy.DROP
    """A template of its revision that it lacks."""
    SNAPSHOT_EXTRA = "snapshot-extra", Remedy.DROP
    """A template that was not there at its revision."""
    SNAPSHOT_IDENTITY = "snapshot-identity", Remedy.DROP
    """A template under another identity than in the store."""
    SNAPSHOT_VECTOR = "snapshot-vector", Remedy.DROP
    """A template with another vector than in the store."""
    SNAPSHOT_CODE = "snapshot-code", Remedy.DROP
    """A code of the fast scan that does not stand for its vector."""
    SNAPSHOT_DIGEST = "snapshot-digest", Remedy.DROP
    """Its rows are not those of the digest that it names."""
    ORPHAN_FILE = "orphan-file", Remedy.CLEAR
    """The snapshot of a gallery that is no more, or half a snapshot that nobody writes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. `template_id` is None where it concerns no single template; no text names a person."""

    fault: Fault
    detail: str
    template_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault.label,
            "template": self.template_id,
            "detail": self.detail,
            "remedy": self.fault.remedy.value,
        }


@dataclass(slots=True)
class Report:
    """What an examination of one gallery found; `revision` is the one of the store that was looked at."""

    gallery: str
    revision: int = 0
    templates: int = 0
    seconds: float = 0.0
    counts: Counter[Fault] = field(default_factory=Counter[Fault])
    findings: list[Finding] = field(default_factory=list[Finding])

    def note(self, found: Iterable[Finding]) -> None:
        for finding in found:
            self.counts[finding.fault] += 1
            if self.counts[finding.fault] <= MOST_NAMED:
                self.findings.append(finding)

    @property
    def is_consistent(self) -> bool:
        return not self.counts

    def needs(self, remedy: Remedy) -> bool:
        return any(fault.remedy is remedy for fault in self.counts)

    def to_json(self) -> dict[str, Any]:
        return {
            "gallery": self.gallery,
            "revision": self.revision,
            "templates": self.templates,
            "seconds": round(self.seconds, 3),
            "is_consistent": self.is_consistent,
            "counts": {fault.label: count for fault, count in self.counts.items()},
            "findings": [finding.to_json() for finding in self.findings],
        }
