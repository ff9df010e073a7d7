"""A gallery's change from one model to another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("template", sa.Column("crop_model_digest", sa.String(64)))
    op.create_table(
        "successor_vector",
        sa.Column("template_id", ROW_NUMBER, nullable=False, autoincrement=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("template_id", name="pk_successor_vector"),
        sa.ForeignKeyConstraint(
            ["template_id"], ["template.id"], name="fk_successor_vector_template_id_template", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["model_digest"], ["model.digest"], name="fk_successor_vector_model_digest_model"),
    )
    op.create_table(
        "succession",
        sa.Column("gallery_id", ROW_NUMBER, nullable=False, autoincrement=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("is_in_force", sa.Boolean, nullable=False),
        sa.Column("scale", sa.JSON(none_as_null=True)),
        sa.Column("certificate_digest", sa.String(64), nullable=False),
        sa.Column("certificate", sa.JSON(none_as_null=True)),
        sa.Column("comparisons", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", name="pk_succession"),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["gallery.id"], name="fk_succession_gallery_id_gallery", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["model_digest"], ["model.digest"], name="fk_succession_model_digest_model"),
    )


def downgrade() -> None:
    op.drop_table("succession")
    op.drop_table("successor_vector")
    op.drop_column("template", "crop_model_digest")
