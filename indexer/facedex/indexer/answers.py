"""The first answer to a request id, as the store remembers it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facedex.indexer.enrolment import Enrolment, EnrolOutcome, EnrolReason, EnrolResult, Finding
from facedex.indexer.vision.face import Box, Face, Quality

if TYPE_CHECKING:
    from facedex.indexer.enrolment import Enrol


def request_digest(request: Enrol, source_digests: list[str]) -> str:
    """Tells a request from another one that carries the same id."""
    details = request.details
    expires = None if details.expires_at is None else details.expires_at.isoformat()
    parts: list[object] = [
        details.external_id,
        details.display_name,
        details.attributes,
        details.consent_reference,
        expires,
        source_digests,
        # Last, and only where it is set, so that what earlier versions remember is still recognised.
        *([] if details.purpose is None else [details.purpose]),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def answer_to_json(enrolment: Enrolment) -> dict[str, Any]:
    document = asdict(enrolment)
    for result, source in zip(document["results"], enrolment.results, strict=True):
        result["outcome"] = source.outcome.value
        for name in ("refusals", "warnings"):
            for finding, original in zip(result[name], getattr(source, name), strict=True):
                finding["reason"] = original.reason.value
    return document


def answer_from_json(document: dict[str, Any]) -> Enrolment:
    """The inverse of `answer_to_json`."""
    results = tuple(_result(each) for each in document["results"])
    return Enrolment(document["identity_id"], results, document["revision"])


def _result(document: dict[str, Any]) -> EnrolResult:
    return EnrolResult(
        outcome=EnrolOutcome(document["outcome"]),
        template_id=document["template_id"],
        refusals=tuple(_finding(each) for each in document["refusals"]),
        warnings=tuple(_finding(each) for each in document["warnings"]),
        faces=tuple(_face(each) for each in document["faces"]),
    )


def _finding(document: dict[str, Any]) -> Finding:
    values: dict[str, Any] = {**document, "reason": EnrolReason(document["reason"])}
    return Finding(**values)


def _face(document: dict[str, Any]) -> Face:
    left_eye, right_eye, nose, left_mouth, right_mouth = ((x, y) for x, y in document["landmarks"])
    return Face(
        box=Box(**document["box"]),
        landmarks=(left_eye, right_eye, nose, left_mouth, right_mouth),
        quality=Quality(**document["quality"]),
    )
