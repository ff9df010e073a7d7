"""How far the collections of a vector engine are filled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "delivery",
        sa.Column("gallery_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("collection", sa.String(128), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "collection", name="pk_delivery"),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["gallery.id"], name="fk_delivery_gallery_id_gallery", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("delivery")
