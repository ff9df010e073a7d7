"""API keys, and how often each is used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("galleries", sa.JSON(none_as_null=True)),
        sa.Column("calls_per_second", sa.Float(53)),
        sa.Column("calls_per_day", sa.BigInteger),
        sa.Column("expires_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_key"),
    )
    op.create_table(
        "api_key_use",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.key_id"], name="fk_api_key_use_key_id"),
        sa.PrimaryKeyConstraint("key_id", "day", name="pk_api_key_use"),
    )


def downgrade() -> None:
    op.drop_table("api_key_use")
    op.drop_table("api_key")
