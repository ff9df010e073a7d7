"""The certificate: one immutable document that says what a threshold promises, and everything that this rests on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from facedex.indexer.calibration.correction import ProbeCorrection
from facedex.indexer.calibration.errors import CertificateInvalid, PromiseRefused
from facedex.indexer.calibration.operating_table import OperatingTable

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
TARGETS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)


class Source(Enum):
    """Where the searches of a calibration come from."""

    PHOTOGRAPHS = "labelled photographs"
    GALLERY = "the gallery itself"
    SCORES = "scores or embeddings of a file"


@dataclass(frozen=True, slots=True)
class Subject:
    """What the promise holds for; anything else is refused.

    quality_limits: the least quality of a probe and of a template, as in the gallery's policy; it is part of the operating
    point, since poor photographs make most false positives. fusion: how an identity with several templates is scored.
    """

    model_name: str
    model_digest: str
    detector_name: str
    detector_digest: str
    quality_limits: dict[str, float]
    fusion: str = "the best of an identity's templates"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was searched: who, how many, and what failed. `digest` is SHA-256 over what went in, hexadecimal."""

    source: Source
    digest: str
    identities: int
    photographs: int
    failures_to_acquire: int
    templates_per_identity: float


@dataclass(frozen=True, slots=True)
class SizeRow:
    """What a target takes at a size of the gallery: a threshold, or None and how many identities are missing."""

    gallery_templates: int
    target_fpir: float
    threshold: float | None
    measured: bool
    further_identities: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """Made once, by a calibration, and never changed; `digest` names it.

    correction: how labelled probes differ from the gallery's own photographs; None where there were none.
    """

    created_at: str
    software: str
    subject: Subject
    dataset: Dataset
    tail: dict[str, float] | None
    table: OperatingTable
    correction: ProbeCorrection | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the document, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def sizes(self) -> Iterator[SizeRow]:
        """Thresholds for galleries from a hundred to ten million templates."""
        for templates in SIZES:
            for target in TARGETS:
                yield self._size_row(templates, target)

    def _size_row(self, templates: int, target: float) -> SizeRow:
        try:
            resolved = self.table.resolve(target, gallery_templates=templates)
        except PromiseRefused as refusal:
            return SizeRow(templates, target, None, measured=False, further_identities=refusal.further_identities)
        measured = resolved.kind.value == "measured"
        return SizeRow(templates, target, resolved.threshold, measured=measured, further_identities=0)

    def to_json(self) -> dict[str, Any]:
        """The document, without its digest."""
        dataset = {**asdict(self.dataset), "source": self.dataset.source.value}
        return {
            "format": FORMAT,
            "created_at": self.created_at,
            "software": self.software,
            "subject": asdict(self.subject),
            "dataset": dataset,
            "tail": self.tail,
            "correction": None if self.correction is None else self.correction.to_json(),
            "table": self.table.to_json(),
            "sizes": [asdict(row) for row in self.sizes()],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any], *, digest: str) -> Certificate:
        """The inverse of `to_json`.

        Raises:
            CertificateInvalid: the document is of another format, or is not the one that the digest names.

        """
        if document.get("format") != FORMAT:
            raise CertificateInvalid(f"is of format {document.get('format')!r}; this version reads {FORMAT}")
        if hashlib.sha256(canonical(document)).hexdigest() != digest:
            raise CertificateInvalid("was changed after it was made; calibrate again")
        dataset: dict[str, Any] = {**document["dataset"], "source": Source(document["dataset"]["source"])}
        correction = document.get("correction")
        return cls(
            created_at=document["created_at"],
            software=document["software"],
            subject=Subject(**document["subject"]),
            dataset=Dataset(**dataset),
            tail=document["tail"],
            table=OperatingTable.from_json(document["table"]),
            correction=None if correction is None else ProbeCorrection.from_json(correction),
        )


def canonical(document: dict[str, Any]) -> bytes:
    """The bytes that the digest is of: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
