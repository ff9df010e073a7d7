"""A seal on each template, and the digest of all of them in each gallery."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections import defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = "consistency"
ROWS_AT_ONCE = 10_000
ADDED = (("template", "seal"), ("gallery", "digest"))

gallery = sa.table("gallery", sa.column("id"), sa.column("digest", sa.LargeBinary))
secret = sa.table("secret", sa.column("name"), sa.column("value", sa.LargeBinary))
template = sa.table(
    "template",
    sa.column("id"),
    sa.column("gallery_id"),
    sa.column("identity_id"),
    sa.column("model_digest"),
    sa.column("vector", sa.LargeBinary),
    sa.column("seal", sa.LargeBinary),
)


def upgrade() -> None:
    # The default fits nothing: a row that somebody adds without a seal is found.
    for table, column in ADDED:
        op.add_column(table, sa.Column(column, sa.LargeBinary, nullable=False, server_default=""))
    connection = op.get_bind()
    key = secrets.token_bytes(32)
    connection.execute(sa.insert(secret).values(name=KEY, value=key))
    sums = _digest_templates(connection, key)
    for (number,) in connection.execute(sa.select(gallery.c.id)).all():
        whole = sums[number].to_bytes(32, "little")
        connection.execute(sa.update(gallery).where(gallery.c.id == number).values(digest=whole))


def _digest_templates(connection: sa.Connection, key: bytes) -> dict[int, int]:
    sums: dict[int, int] = defaultdict(int)
    last = 0
    put = sa.update(template).where(template.c.id == sa.bindparam("number")).values(seal=sa.bindparam("made"))
    while rows := connection.execute(_page(last)).all():
        seals = {row.id: _seal(key, row) for row in rows}
        connection.execute(put, [{"number": number, "made": seal} for number, seal in seals.items()])
        for row in rows:
            member = _keyed(key, b"facedex member", struct.pack("<q", row.id) + seals[row.id])
            sums[row.gallery_id] = (sums[row.gallery_id] + int.from_bytes(member, "little")) % 2**256
        last = rows[-1].id
    return sums


def _page(after: int) -> sa.Select[Any]:
    return sa.select(template).where(template.c.id > after).order_by(template.c.id).limit(ROWS_AT_ONCE)


def _seal(key: bytes, row: sa.Row[Any]) -> bytes:
    model = row.model_digest.encode()
    content = struct.pack("<q", len(model)) + model + struct.pack("<q", row.identity_id) + row.vector
    return _keyed(key, b"facedex seal", content)


def _keyed(key: bytes, person: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=32, person=person).digest()


def downgrade() -> None:
    for table, column in ADDED:
        op.drop_column(table, column)
