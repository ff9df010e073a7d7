"""The tables. Vectors are little-endian fp16; times are UTC; `change` is the numbered log of invariant 3."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite makes row numbers itself only for a column that is exactly INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")
# SQLite forgets time zones, so times go in as UTC and come out as UTC; see `records`.
Moment = DateTime(timezone=True)

# Pages are ordered by name: by code point on both databases, whatever the database's language.
GalleryName = String(63).with_variant(String(63, collation="C"), "postgresql")
ExternalId = String(255).with_variant(String(255, collation="C"), "postgresql")

model = Table(
    "model",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("licence", String(1000), nullable=False),
    Column("default_threshold", Float(53)),
    Column("threshold_basis", String(1000), nullable=False),
)

gallery = Table(
    "gallery",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("name", GalleryName, nullable=False, unique=True),
    Column("model_digest", String(64), ForeignKey("model.digest"), nullable=False),
    Column("policy", JSON, nullable=False),
    # The counter of invariant 3: whoever changes the gallery locks this row first.
    Column("revision", BigInteger, nullable=False),
    # Sum of the digests of its templates, at that revision; see `facedex.indexer.set_digest`.
    Column("digest", LargeBinary, nullable=False, server_default=""),
    Column("created_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

identity = Table(
    "identity",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), nullable=False),
    Column("external_id", ExternalId, nullable=False),
    Column("display_name", String(255), nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("consent_reference", String(255), nullable=False),
    Column("expires_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("purpose", String(255), nullable=False, server_default=""),
    # Why nobody may erase it; empty: it is not held.
    Column("hold_reason", String(255), nullable=False, server_default=""),
    # Names the data key of its vectors and crops; empty: they are not encrypted.
    Column("key_id", String(32), nullable=False, server_default=""),
    UniqueConstraint("gallery_id", "external_id"),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,
)

template = Table(
    "template",
    metadata,
    # Never used again, so that a number in a log or a snapshot means one face for ever.
    Column("id", RowNumber, primary_key=True),
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), nullable=False),
    Column("identity_id", ForeignKey("identity.id", ondelete="CASCADE"), nullable=False),
    Column("model_digest", String(64), ForeignKey("model.digest"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("quality", JSON(none_as_null=True)),
    # SHA-256 of the photograph's bytes, or of the vector's where a vector was enrolled.
    Column("source_digest", String(64), nullable=False),
    Column("crop", LargeBinary),
    # The model for which the crop was aligned, where that is not the vector's.
    Column("crop_model_digest", String(64)),
    # Keyed digest of what a search depends on: a row that somebody else wrote or changed has none that fits.
    Column("seal", LargeBinary, nullable=False, server_default=""),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("identity_id", "model_digest", "source_digest"),
    Index(None, "gallery_id", "id"),
    sqlite_autoincrement=True,
)

# Vectors of the model that a gallery changes to, beside those of the model that it has.
successor_vector = Table(
    "successor_vector",
    metadata,
    Column("template_id", ForeignKey("template.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("model_digest", String(64), ForeignKey("model.digest"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)

# A gallery that changes its model; see `records.Succession`.
succession = Table(
    "succession",
    metadata,
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("model_digest", String(64), ForeignKey("model.digest"), nullable=False),
    Column("is_in_force", Boolean, nullable=False),
    Column("scale", JSON(none_as_null=True)),
    Column("certificate_digest", String(64), nullable=False),
    Column("certificate", JSON(none_as_null=True)),
    # How often both models were asked about a live probe, by what they said.
    Column("comparisons", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
)

change = Table(
    "change",
    metadata,
    Column("gallery_id", RowNumber, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("op", String(8), nullable=False),
    # No foreign keys on purpose: the log outlives what it tells of. 0: the change concerns no template.
    Column("template_id", BigInteger, nullable=False),
    Column("identity_id", BigInteger, nullable=False),
    # Tells a number from the same number in another history, after an older backup was restored.
    Column("changed_at", Moment, nullable=False, default=lambda: datetime.now(UTC)),
    ForeignKeyConstraint(["gallery_id"], ["gallery.id"], ondelete="CASCADE"),
)

# Random keys of this installation, made on first use.
secret = Table(
    "secret",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

request = Table(
    "request",
    metadata,
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at"),
)

# Immutable documents, named by their digest; the newest of a gallery is in force.
certificate = Table(
    "certificate",
    metadata,
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
)

# Long-running work that outlives a restart; see `records.JobRecord`.
job = Table(
    "job",
    metadata,
    Column("id", RowNumber, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("gallery", GalleryName, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    # 0 to 1.
    Column("progress", Float(53), nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("error", String(1000), nullable=False),
    # The process that works on it, and when it last said so: a job whose owner fell silent is taken up by another.
    Column("owner", String(64), nullable=False),
    Column("heartbeat_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    # How many items of a bulk enrolment are dealt with.
    Column("position", BigInteger, nullable=False, server_default="0"),
    Index(None, "state"),
    sqlite_autoincrement=True,
)

# What was noticed about items of a bulk enrolment: by position, so that nobody's name stands here.
job_finding = Table(
    "job_finding",
    metadata,
    Column("job_id", RowNumber, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, primary_key=True),
    # Several findings of one item.
    Column("place", Integer, primary_key=True),
    Column("is_refusal", Boolean, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("message", String(500), nullable=False),
)

# Tombstones; see `tombstones.Tombstone`. No foreign keys on purpose: they outlive what they tell of.
erasure = Table(
    "erasure",
    metadata,
    Column("erasure_id", String(32), primary_key=True),
    Column("gallery_id", RowNumber, nullable=False),
    Column("identity_hash", String(64), nullable=False),
    Column("document", JSON, nullable=False),
    # The signed receipt; empty until the erasure is complete.
    Column("receipt", Text, nullable=False),
    Column("erased_at", Moment, nullable=False),
    # When the last copies were gone.
    Column("purged_at", Moment),
    Index(None, "erased_at"),
    Index(None, "gallery_id", "identity_hash"),
)

# Erasures of other installations; see `portable.ErasedRow`. Archives that were made before bring nobody of them back.
known_erasure = Table(
    "known_erasure",
    metadata,
    Column("store_id", String(32), primary_key=True),
    Column("scope", String(16), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("born_at", Moment, primary_key=True),
    Index(None, "number"),
)

# Who may call the servers; see `facedex.indexer.api_key.ApiKey`. Rows are never deleted.
api_key = Table(
    "api_key",
    metadata,
    Column("key_id", String(32), primary_key=True),
    # SHA-256 of a secret of 256 random bits.
    Column("secret_digest", LargeBinary, nullable=False),
    Column("label", String(255), nullable=False),
    Column("roles", JSON, nullable=False),
    # Names of galleries; NULL: all.
    Column("galleries", JSON(none_as_null=True)),
    Column("calls_per_second", Float(53)),
    Column("calls_per_day", BigInteger),
    Column("expires_at", Moment),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)

# How often a key was used on a day (UTC), counted by all servers together.
api_key_use = Table(
    "api_key_use",
    metadata,
    Column("key_id", ForeignKey("api_key.key_id"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("calls", BigInteger, nullable=False),
)

# Who did what; see `facedex.indexer.audit`. Rows are only ever added.
# Of galleries whose vectors lie in a vector engine too: how far its collections are filled.
delivery = Table(
    "delivery",
    metadata,
    Column("gallery_id", ForeignKey("gallery.id", ondelete="CASCADE"), primary_key=True),
    Column("collection", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("action", String(64), nullable=False),
    Column("gallery", String(63), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("threshold", Float(53)),
    Column("revision", BigInteger),
    # Of this entry and of the hash before.
    Column("hash", LargeBinary, nullable=False),
)

# Number and hash of the last entry, id 1; whoever adds entries locks it. Of the last one that was pruned, id 2.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Tables whose rows belong to a gallery; what others refer to comes last.
OWNED = (template, change, request, certificate, identity)
