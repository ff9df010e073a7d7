"""The numbered change log (invariant 3). Each function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, and_, bindparam, func, insert, select

from facedex.indexer.store.announcements import mark_changed
from facedex.indexer.store.gallery_rows import set_standing
from facedex.indexer.store.identity_rows import decode_vector
from facedex.indexer.store.records import Change, ChangeOp, Standing, as_utc
from facedex.indexer.store.schema import change, identity, secret, successor_vector, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement

    from facedex.indexer.store.sealing import Sealer, Seals


@dataclass(frozen=True, slots=True)
class NewChange:
    """A change that the log is to tell of; 0: it concerns no template, or no identity."""

    op: ChangeOp
    template_id: int
    identity_id: int


def log_change(
    connection: Connection,
    op: ChangeOp,
    template_ids: Sequence[int],
    *,
    gallery_id: int,
    identity_id: int,
    after: Standing,
) -> Standing:
    """Numbers changes after `after`, and leaves the gallery at the last number, with the digest that is handed in."""
    changes = [NewChange(op, template_id, identity_id) for template_id in template_ids]
    revision = insert_changes(connection, gallery_id, changes, after=after.revision)
    standing = Standing(revision, after.digest)
    if revision != after.revision:
        set_standing(connection, gallery_id, standing)
    return standing


def insert_changes(connection: Connection, gallery_id: int, changes: Sequence[NewChange], *, after: int) -> int:
    """Numbers changes after `after`, in order, and returns the last number. The caller holds the gallery's lock."""
    rows = [
        {
            "gallery_id": gallery_id,
            "seq": seq,
            "op": each.op.value,
            "template_id": each.template_id,
            "identity_id": each.identity_id,
        }
        for seq, each in enumerate(changes, start=after + 1)
    ]
    if rows:
        connection.execute(insert(change), rows)
        mark_changed(connection)
    return after + len(rows)


def select_changes(connection: Connection, gallery_id: int, *, after: int, limit: int, seals: Seals) -> list[Change]:
    """Changes above `after` in order, each addition with its vectors unless it was erased since, or its key destroyed."""
    statement = SEALED_CHANGES if seals.are_used else OPEN_CHANGES
    rows = connection.execute(statement, {"of_gallery": gallery_id, "after": after, "at_most": limit}).all()
    sealers = seals.among(row.key_id for row in rows if row.vector is not None) if seals.are_used else None
    return [Change(row.seq, ChangeOp(row.op), row.template_id, row.identity_id, _vectors(row, sealers)) for row in rows]


def _changes(*, sealed: bool) -> Select[Any]:
    """Of the gallery `of_gallery`, above `after`, `at_most` so many; where sealed, with what opening them takes."""
    added = and_(template.c.id == change.c.template_id, change.c.op.in_([ChangeOp.ADD.value, ChangeOp.EMBED.value]))
    embedded = successor_vector.c.template_id == template.c.id
    faces = change.join(template, added, isouter=True).join(successor_vector, embedded, isouter=True)
    columns: tuple[ColumnElement[Any], ...] = (
        template.c.vector,
        template.c.model_digest,
        successor_vector.c.vector.label("new_vector"),
        successor_vector.c.model_digest.label("new_digest"),
    )
    if sealed:
        faces = faces.join(identity, identity.c.id == template.c.identity_id, isouter=True)
        columns = (*columns, template.c.source_digest, identity.c.key_id)
    wanted = change.c.gallery_id == bindparam("of_gallery"), change.c.seq > bindparam("after")
    statement = select(change, *columns).select_from(faces).where(*wanted)
    return statement.order_by(change.c.seq).limit(bindparam("at_most"))


# Composed once, since composing them takes as long as doing them.
OPEN_CHANGES = _changes(sealed=False)
SEALED_CHANGES = _changes(sealed=True)


def _vectors(row: Any, sealers: Mapping[str, Sealer] | None) -> dict[str, NDArray[np.float32]]:
    stored = ((row.model_digest, row.vector), (row.new_digest, row.new_vector))
    held = {digest: vector for digest, vector in stored if vector is not None}
    if sealers is None or not held:
        return {digest: decode_vector(vector) for digest, vector in held.items()}
    sealer = sealers.get(row.key_id)
    if sealer is None:
        return {}
    return {
        digest: decode_vector(sealer.opened(vector, Place(VECTOR, digest, row.source_digest)))
        for digest, vector in held.items()
    }


def count_additions(connection: Connection, gallery_id: int, *, after: int) -> int:
    """How many templates that are still there were added after a revision."""
    added = change.join(template, template.c.id == change.c.template_id)
    wanted = (change.c.gallery_id == gallery_id) & (change.c.seq > after) & (change.c.op == ChangeOp.ADD.value)
    return connection.execute(select(func.count()).select_from(added).where(wanted)).scalar_one()


def select_change_time(connection: Connection, gallery_id: int, seq: int) -> datetime | None:
    """When a change was made; None where the log has no such number."""
    where = (change.c.gallery_id == gallery_id) & (change.c.seq == seq)
    moment = connection.execute(select(change.c.changed_at).where(where)).scalar()
    return None if moment is None else as_utc(moment)


def select_newest_change(connection: Connection) -> datetime | None:
    """When any gallery was changed last."""
    moment = connection.execute(select(func.max(change.c.changed_at))).scalar()
    return None if moment is None else as_utc(moment)


def select_secret(connection: Connection, name: str) -> bytes | None:
    return connection.execute(select(secret.c.value).where(secret.c.name == name)).scalar()


def insert_secret(connection: Connection, name: str, value: bytes) -> None:
    connection.execute(insert(secret).values(name=name, value=value))
