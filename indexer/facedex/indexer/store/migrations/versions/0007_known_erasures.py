"""Erasures of other installations, so that their archives bring nobody back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "known_erasure",
        sa.Column("store_id", sa.String(32), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("born_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("store_id", "scope", "number", "born_at", name="pk_known_erasure"),
    )
    op.create_index("ix_known_erasure_number", "known_erasure", ["number"])


def downgrade() -> None:
    op.drop_table("known_erasure")
