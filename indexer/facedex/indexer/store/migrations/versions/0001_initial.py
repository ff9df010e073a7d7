"""Galleries, models, identities, templates, the change log and remembered requests.

A migration is history: it spells its tables out and never imports today's schema. A test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
GALLERY_NAME = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
EXTERNAL_ID = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_galleries()
    _create_people()
    _create_log()


def _create_galleries() -> None:
    op.create_table(
        "model",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("licence", sa.String(1000), nullable=False),
        sa.Column("default_threshold", sa.Float(53)),
        sa.Column("threshold_basis", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_model"),
    )
    op.create_table(
        "gallery",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("name", GALLERY_NAME, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gallery"),
        sa.ForeignKeyConstraint(["model_digest"], ["model.digest"], name="fk_gallery_model_digest"),
        sa.UniqueConstraint("name", name="uq_gallery_name"),
        sqlite_autoincrement=True,
    )


def _create_people() -> None:
    op.create_table(
        "identity",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("external_id", EXTERNAL_ID, nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("consent_reference", sa.String(255), nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity"),
        sa.ForeignKeyConstraint(["gallery_id"], ["gallery.id"], name="fk_identity_gallery_id", ondelete="CASCADE"),
        sa.UniqueConstraint("gallery_id", "external_id", name="uq_identity_gallery_id_external_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "template",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("identity_id", ROW_NUMBER, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("quality", sa.JSON),
        sa.Column("source_digest", sa.String(64), nullable=False),
        sa.Column("crop", sa.LargeBinary),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_template"),
        sa.ForeignKeyConstraint(["gallery_id"], ["gallery.id"], name="fk_template_gallery_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["identity_id"], ["identity.id"], name="fk_template_identity_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_digest"], ["model.digest"], name="fk_template_model_digest"),
        sa.UniqueConstraint(
            "identity_id",
            "model_digest",
            "source_digest",
            name="uq_template_identity_id_model_digest_source_digest",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_template_gallery_id_id", "template", ["gallery_id", "id"])


def _create_log() -> None:
    op.create_table(
        "change",
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("op", sa.String(8), nullable=False),
        sa.Column("template_id", sa.BigInteger, nullable=False),
        sa.Column("identity_id", sa.BigInteger, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "seq", name="pk_change"),
        sa.ForeignKeyConstraint(["gallery_id"], ["gallery.id"], name="fk_change_gallery_id", ondelete="CASCADE"),
    )
    op.create_table(
        "secret",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secret"),
    )
    op.create_table(
        "request",
        sa.Column("gallery_id", ROW_NUMBER, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "request_id", name="pk_request"),
        sa.ForeignKeyConstraint(["gallery_id"], ["gallery.id"], name="fk_request_gallery_id", ondelete="CASCADE"),
    )
    op.create_index("ix_request_created_at", "request", ["created_at"])


def downgrade() -> None:
    for table in ("request", "secret", "change", "template", "identity", "gallery", "model"):
        op.drop_table(table)
