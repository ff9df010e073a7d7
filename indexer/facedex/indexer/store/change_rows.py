"""The numbered change log (invariant 3). Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, and_, insert, select

from facedex.indexer.store.gallery_rows import set_standing
from facedex.indexer.store.identity_rows import decode_vector
from facedex.indexer.store.records import Change, ChangeOp, Standing, as_utc
from facedex.indexer.store.schema import change, secret, template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


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
    revision = insert_changes(
        connection, op, template_ids, gallery_id=gallery_id, identity_id=identity_id, after=after.revision
    )
    standing = Standing(revision, after.digest)
    if revision != after.revision:
        set_standing(connection, gallery_id, standing)
    return standing


def insert_changes(
    connection: Connection,
    op: ChangeOp,
    template_ids: Sequence[int],
    *,
    gallery_id: int,
    identity_id: int,
    after: int,
) -> int:
    """Numbers changes after `after`, in order, and returns the last number. The caller holds the gallery's lock."""
    numbered = enumerate(template_ids, start=after + 1)
    common = {"gallery_id": gallery_id, "identity_id": identity_id, "op": op.value}
    rows = [{**common, "seq": seq, "template_id": template_id} for seq, template_id in numbered]
    if rows:
        connection.execute(insert(change), rows)
    return after + len(rows)


def select_changes(connection: Connection, gallery_id: int, *, after: int, limit: int) -> list[Change]:
    """Changes above `after` in order, each addition with its vector unless it was erased since."""
    added = and_(template.c.id == change.c.template_id, change.c.op == ChangeOp.ADD.value)
    statement = (
        select(change, template.c.vector)
        .select_from(change)
        .join(template, added, isouter=True)
        .where(change.c.gallery_id == gallery_id, change.c.seq > after)
        .order_by(change.c.seq)
        .limit(limit)
    )
    return [
        Change(
            seq=row.seq,
            op=ChangeOp(row.op),
            template_id=row.template_id,
            identity_id=row.identity_id,
            vector=None if row.vector is None else decode_vector(row.vector),
        )
        for row in connection.execute(statement)
    ]


def select_change_time(connection: Connection, gallery_id: int, seq: int) -> datetime | None:
    """When a change was made; None where the log has no such number."""
    where = (change.c.gallery_id == gallery_id) & (change.c.seq == seq)
    moment = connection.execute(select(change.c.changed_at).where(where)).scalar()
    return None if moment is None else as_utc(moment)


def select_secret(connection: Connection, name: str) -> bytes | None:
    return connection.execute(select(secret.c.value).where(secret.c.name == name)).scalar()


def insert_secret(connection: Connection, name: str, value: bytes) -> None:
    connection.execute(insert(secret).values(name=name, value=value))
