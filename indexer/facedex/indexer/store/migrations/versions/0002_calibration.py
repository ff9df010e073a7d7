"""Certificates of calibrations, and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
GALLERY_NAME = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "certificate",
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "digest", name="pk_certificate"),
        sa.ForeignKeyConstraint(["gallery_id"], ["gallery.id"], name="fk_certificate_gallery_id", ondelete="CASCADE"),
    )
    op.create_table(
        "job",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("gallery", GALLERY_NAME, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", sa.Float(53), nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.String(1000), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_state", "job", ["state"])


def downgrade() -> None:
    for table in ("job", "certificate"):
        op.drop_table(table)
