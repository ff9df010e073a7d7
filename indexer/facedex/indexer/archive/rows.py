"""People, templates and erasures as Parquet files, and back; what comes back is checked like any other input."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.archive.errors import ArchiveDamaged
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.store.identity_rows import VECTOR_DTYPE
from facedex.indexer.store.portable import ErasedRow, PortablePerson, PortableTemplate
from facedex.indexer.store.records import IdentityDetails
from facedex.indexer.store.tombstones import ErasureScope
from facedex.indexer.texts import checked_details, checked_text
from facedex.indexer.vectors import UNIT_LENGTH_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from facedex.indexer.archive.manifest import Member
    from facedex.indexer.store.records import ModelRecord

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# Rows of one member, and what they may take in memory.
MAX_ROWS = 10_000
MAX_ROW_BYTES = 2**28
MAX_CROP_BYTES = 2**20


class Rows:
    """Parquet files of the people of one model. Needs pyarrow."""

    def __init__(self, model: ModelRecord) -> None:
        self._model = model
        self._arrow = arrow()
        self._people = _people_schema(self._arrow)
        self._templates = _templates_schema(self._arrow, model.dimension)

    def people_file(self, people: Sequence[PortablePerson]) -> bytes:
        """Without their templates."""
        columns = {
            "number": [each.number for each in people],
            "identity_id": [each.external_id for each in people],
            "display_name": [each.display_name for each in people],
            "attributes": [list(each.attributes.items()) for each in people],
            "consent_reference": [each.consent_reference for each in people],
            "purpose": [each.purpose for each in people],
            "hold_reason": [each.hold_reason for each in people],
            "expires_at": [each.expires_at for each in people],
            "created_at": [each.created_at for each in people],
        }
        return _file(self._arrow.Table.from_pydict(columns, schema=self._people), compression="zstd")

    def templates_file(self, people: Sequence[PortablePerson]) -> bytes:
        """The templates of people, each with the number of its person."""
        owned = [(person.number, each) for person in people for each in person.templates]
        quality = [None if each.quality is None else list(each.quality.items()) for _, each in owned]
        columns = {
            "number": [each.number for _, each in owned],
            "person": [number for number, _ in owned],
            "model_digest": [self._model.digest] * len(owned),
            "vector": self._vectors([each.vector for _, each in owned]),
            "quality": quality,
            "source_digest": [each.source_digest for _, each in owned],
            "crop": [each.crop for _, each in owned],
            "crop_model_digest": [each.crop_model_digest for _, each in owned],
            "created_at": [each.created_at for _, each in owned],
        }
        return _file(self._arrow.Table.from_pydict(columns, schema=self._templates), compression="none")

    def _vectors(self, vectors: Sequence[bytes]) -> Any:
        components = np.frombuffer(b"".join(vectors), VECTOR_DTYPE)
        return self._arrow.FixedSizeListArray.from_arrays(
            self._arrow.array(components, self._arrow.float16()), self._model.dimension
        )

    def people(
        self, people_member: Member, people_content: bytes, templates_member: Member, templates_content: bytes
    ) -> list[PortablePerson]:
        """The people of both files. Raises ArchiveDamaged."""
        rows = _rows(_table(people_content, people_member, self._people), people_member)
        table = _table(templates_content, templates_member, self._templates)
        templates = self._owned(templates_member, table)
        people = [_person(row, templates.pop(row["number"], ()), people_member) for row in rows]
        if templates or len({each.number for each in people} | {each.external_id for each in people}) != 2 * len(
            people
        ):
            raise ArchiveDamaged(f"{people_member.name} names somebody twice, or not at all")
        return people

    def _owned(self, member: Member, table: Any) -> dict[int, tuple[PortableTemplate, ...]]:
        """Person → templates."""
        vectors = self._checked_vectors(member, table)
        owned: dict[int, list[PortableTemplate]] = {}
        for row, vector in zip(_rows(table.drop_columns(["vector"]), member), vectors, strict=True):
            if row["model_digest"] != self._model.digest:
                raise ArchiveDamaged(f"{member.name} holds a template of another model")
            owned.setdefault(row["person"], []).append(_template(row, vector, member))
        if any(len({each.source_digest for each in templates}) < len(templates) for templates in owned.values()):
            raise ArchiveDamaged(f"{member.name} holds a photograph of somebody twice")
        return {person: tuple(templates) for person, templates in owned.items()}

    def _checked_vectors(self, member: Member, table: Any) -> list[bytes]:
        """Each as it is stored, after a look at all of them."""
        column = table.column("vector").combine_chunks()
        components = column.flatten().to_numpy(zero_copy_only=False).astype(VECTOR_DTYPE, copy=False)
        if column.null_count or components.size != len(table) * self._model.dimension:
            raise ArchiveDamaged(f"{member.name} lacks a vector")
        vectors = components.reshape(len(table), self._model.dimension)
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
        if not np.all(np.abs(lengths - 1) <= UNIT_LENGTH_TOLERANCE):  # also where one is NaN
            raise ArchiveDamaged(f"{member.name} holds a vector that is not of unit length")
        return [vector.tobytes() for vector in vectors]


def erasures_file(erased: Sequence[ErasedRow]) -> bytes:
    columns = {
        "store": [each.store_id for each in erased],
        "scope": [each.scope.value for each in erased],
        "number": [each.number for each in erased],
        "born_at": [each.born_at for each in erased],
    }
    library = arrow()
    return _file(library.Table.from_pydict(columns, schema=_erasures_schema(library)), compression="zstd")


def erasures(member: Member, content: bytes) -> Iterator[ErasedRow]:
    """Raises ArchiveDamaged."""
    for row in _rows(_table(content, member, _erasures_schema(arrow())), member):
        try:
            yield ErasedRow(row["store"], ErasureScope(row["scope"]), row["number"], row["born_at"])
        except ValueError:
            raise ArchiveDamaged(f"{member.name} tells of an erasure of no kind that there is") from None


def arrow() -> Any:
    """Raises InvalidArgument where it is not installed."""
    try:
        return import_module("pyarrow")
    except ModuleNotFoundError:
        raise InvalidArgument("archives", "need pyarrow: pip install 'facedex[archive]'") from None


def _people_schema(library: Any) -> Any:
    text, moment = library.string(), library.timestamp("us", "UTC")
    fields = {
        "number": library.int64(),
        "identity_id": text,
        "display_name": text,
        "attributes": library.map_(text, text),
        "consent_reference": text,
        "purpose": text,
        "hold_reason": text,
        "expires_at": moment,
        "created_at": moment,
    }
    return _schema(library, fields, may_be_missing={"expires_at"})


def _templates_schema(library: Any, dimension: int) -> Any:
    fields = {
        "number": library.int64(),
        "person": library.int64(),
        "model_digest": library.string(),
        "vector": library.list_(library.float16(), dimension),
        "quality": library.map_(library.string(), library.float64()),
        "source_digest": library.string(),
        "crop": library.binary(),
        "crop_model_digest": library.string(),
        "created_at": library.timestamp("us", "UTC"),
    }
    return _schema(library, fields, may_be_missing={"vector", "quality", "crop", "crop_model_digest"})


def _erasures_schema(library: Any) -> Any:
    fields = {
        "store": library.string(),
        "scope": library.string(),
        "number": library.int64(),
        "born_at": library.timestamp("us", "UTC"),
    }
    return _schema(library, fields, may_be_missing=set())


def _schema(library: Any, fields: dict[str, Any], *, may_be_missing: set[str]) -> Any:
    return library.schema([library.field(name, kind, name in may_be_missing) for name, kind in fields.items()])


def _file(table: Any, *, compression: str) -> bytes:
    parquet: Any = import_module("pyarrow.parquet")
    sink = arrow().BufferOutputStream()
    # Vectors repeat nothing: to look for what repeats in them takes longer than all the rest.
    plain = {"use_dictionary": ["model_digest"], "write_statistics": False}
    parquet.write_table(table, sink, compression=compression, row_group_size=MAX_ROWS, **plain)
    return bytes(sink.getvalue().to_pybytes())


def _rows(table: Any, member: Member) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (ValueError, OverflowError):  # a moment beyond all calendars
        raise ArchiveDamaged(f"{member.name} holds a value that is none") from None
    return rows


def _table(content: bytes, member: Member, schema: Any) -> Any:
    library: Any = arrow()
    parquet: Any = import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(library.BufferReader(content)) as file:
            _check_size(file.metadata, member)
            table = file.read()
    except (library.ArrowException, OSError):
        raise ArchiveDamaged(f"{member.name} is no Parquet file that can be read") from None
    if not table.schema.equals(schema) or len(table) != member.rows:
        raise ArchiveDamaged(f"{member.name} has not the columns or rows that facedex writes")
    return table


def _check_size(metadata: Any, member: Member) -> None:
    """Before it is unpacked."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > MAX_ROWS or sum(each.total_byte_size for each in groups) > MAX_ROW_BYTES:
        raise ArchiveDamaged(f"{member.name} holds more than any that facedex writes")


def _person(row: dict[str, Any], templates: tuple[PortableTemplate, ...], member: Member) -> PortablePerson:
    try:
        attributes = dict(row["attributes"])
        checked_text(row["hold_reason"], "hold_reason")
        checked_details(
            IdentityDetails(
                row["identity_id"],
                display_name=row["display_name"],
                attributes=attributes,
                consent_reference=row["consent_reference"],
                purpose=row["purpose"],
            )
        )
    except (InvalidArgument, TypeError, ValueError):
        raise ArchiveDamaged(f"{member.name} says of somebody what no gallery holds") from None
    return PortablePerson(
        number=row["number"],
        external_id=row["identity_id"],
        display_name=row["display_name"],
        attributes=attributes,
        consent_reference=row["consent_reference"],
        purpose=row["purpose"],
        hold_reason=row["hold_reason"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        templates=templates,
    )


def _template(row: dict[str, Any], vector: bytes, member: Member) -> PortableTemplate:
    crop: bytes | None = row["crop"]
    digests = (row["source_digest"], row["crop_model_digest"] or row["source_digest"])
    if not all(SHA256.fullmatch(each) for each in digests) or len(crop or b"") > MAX_CROP_BYTES:
        raise ArchiveDamaged(f"{member.name} says of a photograph what no gallery holds")
    quality = row["quality"]
    return PortableTemplate(
        row["number"],
        vector,
        row["source_digest"],
        None if quality is None else dict(quality),
        crop,
        row["crop_model_digest"],
        row["created_at"],
    )
