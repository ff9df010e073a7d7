"""How far a bulk enrolment is, and what was noticed about its items."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("job", sa.Column("position", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "job_finding",
        sa.Column("job_id", ROW_NUMBER, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("is_refusal", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("message", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "position", "place", name="pk_job_finding"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_finding_job_id_job", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("job_finding")
    op.drop_column("job", "position")
