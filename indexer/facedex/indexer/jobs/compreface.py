"""Faces of a CompreFace installation, from a plain dump of its database.

Its tables: `subject` (a person of a face collection, which an API key names), `embedding` (a vector, the calculator that
made it, the subject, the photograph if it was kept) and `img` (photographs). `model` has the names of the collections.
"""

from __future__ import annotations

import binascii
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.enrolment import EnrolReason, VectorItem
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkItem, ItemRefused, Survey, details_at
from facedex.indexer.jobs.pg_dump import DumpRow, Wanted, dump_rows
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SUBJECT = Wanted(("id", "api_key", "subject_name"))
COLLECTION = Wanted(("name", "api_key"))
OWNER = Wanted(("id", "subject_id", "calculator", "img_id"))
VECTOR = Wanted(("id", "subject_id", "calculator", "embedding"))
# What of a line is no photograph.
IMAGE_LINE_BYTES = 1_024
HEX = b"\\x"


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """Which of the face collections is meant, by its name or API key, and which calculator is the model of the vectors."""

    collection: str | None = None
    calculator: str | None = None


@dataclass(frozen=True, slots=True)
class CompreFacePhotographs:
    """The photographs of a dump, each of the person whose embedding was made of it.

    An embedding without a photograph is refused, since the vector of another model says nothing here. Memory: some 200
    bytes for each photograph, and those being worked on.
    """

    file: Path
    options: DumpOptions
    max_image_bytes: int

    def survey(self) -> Survey:
        people = _People.of(self.file, self.options)
        if not people.names_of_photographs:
            raise InvalidArgument(str(self.file), f"holds no photographs, only {people.vectors_told}: see --model")
        details = (_details(self.file, place, name) for place, name, _ in self._entries(people))
        return Survey.of_file(self.file, sum(1 for _ in details), self.options.collection or "")

    def items(self) -> Iterator[BulkItem]:
        for place, name, content in self._entries(_People.of(self.file, self.options)):
            read = partial(_refuse_lost, place) if content is None else self._reader(content)
            yield BulkItem(place, _details(self.file, place, name), read)

    def _entries(self, people: _People) -> Iterator[tuple[str, str, DumpRow | None]]:
        """Place, name, and the row of the photograph; None where there is no photograph."""
        missing = dict(people.names_of_photographs)
        wanted = {"embedding": OWNER, "img": Wanted(("id", "content"), 2 * self.max_image_bytes + IMAGE_LINE_BYTES)}
        for row in dump_rows(self.file, wanted):
            if row.table == "img":
                name = missing.pop(row.values[0] or b"", None)
                if name is not None:
                    yield _place(row), name, row
            elif row.values[3] is None and (name := people.names.get(row.values[1] or b"")) is not None:
                yield _place(row), name, None
        for image, name in missing.items():
            yield f"img {_told(image)}", name, None

    def _reader(self, row: DumpRow) -> Callable[[], bytes]:
        content = row.values[1]
        if row.is_cut or content is None or len(content) > 2 * self.max_image_bytes + len(HEX):
            return partial(_refuse_size, self.max_image_bytes)
        try:
            # Decoded at once, so that half as much waits in memory.
            photograph = binascii.unhexlify(content.removeprefix(HEX)) if content.startswith(HEX) else None
        except binascii.Error:
            photograph = None
        return _refuse_content if photograph is None else partial(bytes, photograph)


@dataclass(frozen=True, slots=True)
class CompreFaceVectors:
    """The vectors of a dump that one calculator made, which is the gallery's model; those of others are refused.

    CompreFace does not keep them at unit length; they are brought to it, which changes no cosine.
    """

    file: Path
    options: DumpOptions
    model_digest: str

    def survey(self) -> Survey:
        people = _People.of(self.file, self.options)
        calculator = self._calculator(people)
        details = (_details(self.file, _place(row), name) for row, name in self._entries(people))
        return Survey.of_file(
            self.file, sum(1 for _ in details), self.options.collection or "", calculator, self.model_digest
        )

    def items(self) -> Iterator[BulkItem]:
        people = _People.of(self.file, self.options)
        calculator = self._calculator(people)
        for row, name in self._entries(people):
            place = _place(row)
            yield BulkItem(place, _details(self.file, place, name), partial(self._read, row, calculator))

    def _entries(self, people: _People) -> Iterator[tuple[DumpRow, str]]:
        for row in dump_rows(self.file, {"embedding": VECTOR}):
            name = people.names.get(row.values[1] or b"")
            if name is not None:
                yield row, name

    def _calculator(self, people: _People) -> str:
        """Of the vectors that are meant.

        Raises:
            InvalidArgument: there are several, and none was named.

        """
        wanted = self.options.calculator
        if wanted is None and len(people.calculators) == 1:
            return next(iter(people.calculators))
        if wanted is None or wanted not in people.calculators:
            raise InvalidArgument(
                "--calculator", f"{self.file} holds {people.vectors_told}: name the one that is the model"
            )
        return wanted

    def _read(self, row: DumpRow, calculator: str) -> VectorItem:
        made_by = _told(row.values[2])
        if made_by != calculator:
            raise ItemRefused(
                EnrolReason.WRONG_MODEL, f"{made_by} made the vector, not {calculator}: enrol the photograph instead"
            )
        return VectorItem(_vector(row.values[3] or b""), self.model_digest)


@dataclass(frozen=True, slots=True)
class _People:
    """Names of the subjects of one collection, by their id; whom photographs show, by theirs; vectors by calculator."""

    names: dict[bytes, str]
    names_of_photographs: dict[bytes, str]
    calculators: Counter[str]

    @classmethod
    def of(cls, file: Path, options: DumpOptions) -> _People:
        subjects = _Subjects.of(file)
        names = subjects.of_collection(options.collection)
        photographs: dict[bytes, str] = {}
        calculators: Counter[str] = Counter()
        for row in dump_rows(file, {"embedding": OWNER}):
            name = names.get(row.values[1] or b"")
            if name is not None:
                calculators[_told(row.values[2])] += 1
                if row.values[3] is not None:
                    photographs[row.values[3]] = name
        if not calculators:
            raise InvalidArgument(str(file), "holds nobody with an embedding: dump subject, embedding and img")
        return cls(names, photographs, calculators)

    @property
    def vectors_told(self) -> str:
        return ", ".join(f"{count} vectors of {name}" for name, count in sorted(self.calculators.items()))


@dataclass(frozen=True, slots=True)
class _Subjects:
    """Everybody in a dump, by API key and id, and the collections' names by API key."""

    file: Path
    names: dict[bytes, dict[bytes, str]] = field(default_factory=dict)
    collections: dict[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path) -> _Subjects:
        found = cls(file)
        for row in dump_rows(file, {"subject": SUBJECT, "model": COLLECTION}):
            if row.table == "model":
                found.collections[row.values[1] or b""] = _told(row.values[0])
            else:
                found.names.setdefault(row.values[1] or b"", {})[row.values[0] or b""] = _name(file, row)
        if not found.names:
            raise InvalidArgument(str(file), "has no rows of a table subject: it is no plain dump of CompreFace")
        return found

    def of_collection(self, wanted: str | None) -> dict[bytes, str]:
        """Names by id.

        Raises:
            InvalidArgument: it is not clear which collection is meant.

        """
        if wanted is None and len(self.names) == 1:
            return next(iter(self.names.values()))
        keys = [key for key in self.names if wanted in {_told(key), self.collections.get(key)}]
        if len(keys) != 1:
            raise InvalidArgument("--collection", f"{self.file} holds {self._told()}: name one, or give its API key")
        return self.names[keys[0]]

    def _told(self) -> str:
        # API keys are secrets: they are not shown.
        known = sorted(self.collections.get(key, "one without a name") for key in self.names)
        return f"{len(known)} face collections ({', '.join(known)})"


def _place(row: DumpRow) -> str:
    return f"{row.table} {_told(row.values[0])}"


def _name(file: Path, subject: DumpRow) -> str:
    try:
        return (subject.values[2] or b"").decode()
    except UnicodeDecodeError:
        raise InvalidArgument(str(file), f"the name of subject {_told(subject.values[0])} is not in UTF-8") from None


def _details(file: Path, place: str, name: str) -> IdentityDetails:
    return details_at(f"{file}, {place}", IdentityDetails(name))


def _vector(text: bytes) -> NDArray[np.float32]:
    try:
        components = [float(each) for each in text.removeprefix(b"{").removesuffix(b"}").split(b",")]
    except ValueError:
        raise ItemRefused(EnrolReason.VECTOR_INVALID, "the embedding is no list of numbers") from None
    vector = np.array(components, np.float64)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise ItemRefused(EnrolReason.VECTOR_INVALID, "the embedding has no direction: it is zero, or not finite")
    return (vector / length).astype(np.float32)


def _told(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _refuse_lost(place: str) -> bytes:
    kept = "CompreFace kept no photograph of it" if place.startswith("embedding") else "the dump lacks the photograph"
    raise ItemRefused(EnrolReason.IMAGE_UNREADABLE, f"{kept}: enrol another photograph of the person")


def _refuse_size(limit: int) -> bytes:
    raise ItemRefused(EnrolReason.IMAGE_UNREADABLE, f"the photograph is missing, or has more than {limit} bytes")


def _refuse_content() -> bytes:
    raise ItemRefused(EnrolReason.IMAGE_UNREADABLE, "the photograph is not in bytea's hex format")
