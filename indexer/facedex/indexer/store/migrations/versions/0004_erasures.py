"""Tombstones of erasures; purpose, legal hold and data key of identities."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("erasure_id", sa.String(32), nullable=False),
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("identity_hash", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("erased_at", MOMENT, nullable=False),
        sa.Column("purged_at", MOMENT),
        sa.PrimaryKeyConstraint("erasure_id", name="pk_erasure"),
    )
    op.create_index("ix_erasure_erased_at", "erasure", ["erased_at"])
    op.create_index("ix_erasure_gallery_id_identity_hash", "erasure", ["gallery_id", "identity_hash"])
    for name, length in (("purpose", 255), ("hold_reason", 255), ("key_id", 32)):
        op.add_column("identity", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.create_index("ix_identity_expires_at", "identity", ["expires_at"])


def downgrade() -> None:
    op.drop_index("ix_identity_expires_at", "identity")
    for name in ("key_id", "hold_reason", "purpose"):
        op.drop_column("identity", name)
    op.drop_table("erasure")
