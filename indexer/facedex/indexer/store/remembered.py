"""Remembered answers, and taking out of them what they tell of somebody who is erased."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, cast, delete, func, insert, select, update

from facedex.indexer.store.records import RememberedRequest
from facedex.indexer.store.schema import request

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from facedex.indexer.store.tombstones import KeyedHash
# Composed once: composing it takes as long as doing it.
ANSWERED = select(request).where(
    request.c.gallery_id == bindparam("gallery"), request.c.request_id.in_(bindparam("names", expanding=True))
)


def select_requests(
    connection: Connection, gallery_id: int, request_ids: Iterable[str], keyed_hash: KeyedHash
) -> dict[str, RememberedRequest]:
    """The first answers to those of the request ids that were answered, also where the person was erased since."""
    names = {name: each for each in request_ids for name in (each, keyed_hash.of_request(each))}
    if not names:
        return {}
    rows = connection.execute(ANSWERED, {"gallery": gallery_id, "names": list(names)})
    return {names[row.request_id]: RememberedRequest(names[row.request_id], row.digest, row.answer) for row in rows}


def insert_requests(
    connection: Connection, gallery_id: int, answered: Iterable[RememberedRequest], *, now: datetime
) -> None:
    rows = [
        {
            "gallery_id": gallery_id,
            "request_id": each.request_id,
            "digest": each.digest,
            "answer": each.answer,
            "created_at": now,
        }
        for each in answered
    ]
    if rows:
        connection.execute(insert(request), rows)


def delete_requests(connection: Connection, *, before: datetime) -> int:
    return connection.execute(delete(request).where(request.c.created_at < before)).rowcount


def answers_about(connection: Connection, gallery_id: int, external_id: str) -> list[dict[str, Any]]:
    """The remembered answers that name an identity, as the one enrolled or as somebody who looks like it."""
    return [row.answer for row in _mentions(connection, gallery_id, [json.dumps(external_id)])]


def forget_identity(connection: Connection, gallery_id: int, external_id: str, keyed_hash: KeyedHash) -> None:
    """No answer names the identity any more.

    Its own answers stay as far as they say that a request was answered, under a keyed hash of the request's id: a late
    repetition must not enrol again who was erased.
    """
    for row in _mentions(connection, gallery_id, [json.dumps(external_id)]):
        answer: dict[str, Any] = row.answer
        values: dict[str, Any] = {"answer": without_identity(answer, external_id)}
        if answer.get("identity_id") == external_id:
            values["request_id"] = keyed_hash.of_request(row.request_id)
            connection.execute(delete(request).where(_is(gallery_id, values["request_id"])))
        _replace(connection, gallery_id, row.request_id, values)


def forget_templates(connection: Connection, gallery_id: int, template_ids: Collection[int]) -> None:
    """No answer describes the photographs of these templates any more."""
    texts = [f'"template_id": {number}{end}' for number in template_ids for end in ",}"]
    for row in _mentions(connection, gallery_id, texts):
        _replace(connection, gallery_id, row.request_id, {"answer": without_templates(row.answer, template_ids)})


def without_identity(answer: dict[str, Any], external_id: str) -> dict[str, Any]:
    """The answer without an identity, as the one enrolled or as somebody who looks like it."""
    if answer.get("identity_id") == external_id:
        return {**answer, "identity_id": "", "results": [_bare(each) for each in answer["results"]]}
    return {**answer, "results": [_without_other(each, external_id) for each in answer["results"]]}


def without_templates(answer: dict[str, Any], template_ids: Collection[int]) -> dict[str, Any]:
    results = [_bare(each) if each["template_id"] in template_ids else each for each in answer["results"]]
    return {**answer, "results": results}


def _bare(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "faces": [], "refusals": [], "warnings": []}


def _without_other(result: dict[str, Any], external_id: str) -> dict[str, Any]:
    def cleaned(findings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**each, "other_identity_id": ""} if each["other_identity_id"] == external_id else each for each in findings
        ]

    return {**result, "refusals": cleaned(result["refusals"]), "warnings": cleaned(result["warnings"])}


def _mentions(connection: Connection, gallery_id: int, texts: Iterable[str]) -> list[Any]:
    """Answers in whose text one of these stands; a few more may be found, which are left as they are."""
    place = func.instr if connection.dialect.name == "sqlite" else func.strpos
    found: dict[str, Any] = {}
    for text in texts:
        where = (request.c.gallery_id == gallery_id) & (place(cast(request.c.answer, Text), text) > 0)
        found |= {row.request_id: row for row in connection.execute(select(request).where(where))}
    return list(found.values())


def _replace(connection: Connection, gallery_id: int, request_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(request).where(_is(gallery_id, request_id)).values(values))


def _is(gallery_id: int, request_id: str) -> ColumnElement[bool]:
    return (request.c.gallery_id == gallery_id) & (request.c.request_id == request_id)
