"""Everything that is held about one person, as a ZIP file that people and programs can read."""

from __future__ import annotations

import enum
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from facedex.indexer.store.records import HeldPerson, HeldTemplate

FORMAT = "facedex person export 1"
DOCUMENT = "person.json"
NOT_HELD = (
    "photographs: only what is measured on them and, where the gallery keeps them, aligned crops",
    "searches: who was looked for or found is not recorded",
)


class VectorChoice(enum.Enum):
    """Whether vectors are in the export: whoever has them can compare the person, and build a face like theirs."""

    WITH_VECTORS = "with"
    WITHOUT_VECTORS = "without"


def person_archive(person: HeldPerson, *, gallery: str, vectors: VectorChoice, exported_at: datetime) -> bytes:
    """The ZIP file: `person.json`, and each aligned crop as a PNG file."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in person_files(person, gallery=gallery, vectors=vectors, exported_at=exported_at):
            archive.writestr(name, content)
    return target.getvalue()


def person_files(
    person: HeldPerson, *, gallery: str, vectors: VectorChoice, exported_at: datetime
) -> Iterator[tuple[str, bytes]]:
    """Name and content of what is in the ZIP file."""
    document = person_document(person, gallery=gallery, vectors=vectors, exported_at=exported_at)
    yield DOCUMENT, json.dumps(document, indent=2, ensure_ascii=False).encode()
    for each in person.templates:
        if each.crop is not None:
            yield _crop_name(each), each.crop


def person_document(
    person: HeldPerson, *, gallery: str, vectors: VectorChoice, exported_at: datetime
) -> dict[str, Any]:
    record = person.record
    return {
        "format": FORMAT,
        "exported_at": exported_at.isoformat(),
        "gallery": gallery,
        "identity": {
            "id": record.external_id,
            "number": record.id,
            "display_name": record.display_name,
            "attributes": record.attributes,
            "consent_reference": record.consent_reference,
            "purpose": record.purpose,
            "hold_reason": record.hold_reason,
            "expires_at": None if record.expires_at is None else record.expires_at.isoformat(),
            "enrolled_at": record.created_at.isoformat(),
        },
        "templates": [_template(each, vectors) for each in person.templates],
        "changes": [
            {
                "revision": each.revision,
                "what": each.op,
                "template": each.template_id,
                "at": each.changed_at.isoformat(),
            }
            for each in person.changes
        ],
        "remembered_answers": [_own_part(each, record.external_id) for each in person.answers],
        "not_held": list(NOT_HELD),
    }


def _template(each: HeldTemplate, vectors: VectorChoice) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": each.id,
        "model": each.model_name,
        "model_digest": each.model_digest,
        "quality": each.quality,
        "source_digest": each.source_digest,
        "enrolled_at": each.created_at.isoformat(),
        "crop": None if each.crop is None else _crop_name(each),
    }
    if vectors is VectorChoice.WITH_VECTORS:
        document["vector"] = None if each.vector is None else [float(value) for value in each.vector]
    return document


def _own_part(answer: dict[str, Any], external_id: str) -> dict[str, Any]:
    """An answer about somebody else tells this person only that they were named in it: it is not theirs."""
    if answer.get("identity_id") != external_id:
        return {"named_in_the_answer_about_somebody_else": True}
    results = [
        {**result, **{kind: [_without_others(each) for each in result[kind]] for kind in ("refusals", "warnings")}}
        for result in answer["results"]
    ]
    return {**answer, "results": results}


def _without_others(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if name != "other_identity_id"}


def _crop_name(each: HeldTemplate) -> str:
    return f"crops/template-{each.id}.png"
