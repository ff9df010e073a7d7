"""Templates in Milvus: one collection a gallery and model, with the template's number as the primary key."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facedex.indexer.errors import EngineMissing, EngineUnavailable
from facedex.indexer.search.segment import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.template_index import Scope

_TEMPLATE, _IDENTITY, _VECTOR = "template_id", "identity_id", "vector"
_FIELDS: Final = [_TEMPLATE, _IDENTITY, _VECTOR]
_MOST: Final = 16_384
"""Milvus' own limit for one search."""
_AT_ONCE: Final = 2_000
"""Rows in one message: Milvus takes 64 MiB."""


class MilvusEngine:
    """An `Engine` over one collection, which is made where it is not there.

    Every question asks for strong consistency, so that whatever was written before is seen. `index_type` is an index of
    Milvus; FLAT compares with every vector and loses nobody, others are faster and may.
    """

    def __init__(self, client: Any, collection: str, dimension: int, *, index_type: str = "FLAT") -> None:
        self._client = client
        self._collection = collection
        self._dimension = dimension
        if not client.has_collection(collection):
            self._create(index_type)
        client.load_collection(collection)  # which an engine that was started anew may not have done

    @property
    def most(self) -> int:
        return _MOST

    def upsert(self, rows: Rows) -> None:
        for part in _parts(range(len(rows))):
            self._client.upsert(
                self._collection,
                [
                    {
                        _TEMPLATE: int(rows.template_ids[row]),
                        _IDENTITY: int(rows.identity_ids[row]),
                        _VECTOR: rows.vectors[row],
                    }
                    for row in part
                ],
            )

    def delete(self, template_ids: Sequence[int]) -> None:
        for part in _parts(template_ids):
            self._client.delete(self._collection, ids=list(part))

    def held(self, template_ids: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for part in _parts(template_ids):
            rows = self._client.query(
                self._collection, ids=list(part), output_fields=[_TEMPLATE], consistency_level="Strong"
            )
            found |= {int(row[_TEMPLATE]) for row in rows}
        return found

    def rows(self, template_ids: Sequence[int]) -> Rows:
        found: list[dict[str, Any]] = []
        for part in _parts(template_ids):
            found += self._client.query(
                self._collection, ids=list(part), output_fields=_FIELDS, consistency_level="Strong"
            )
        return self._as_rows(found)

    def pages(self) -> Iterator[Rows]:
        pages = self._client.query_iterator(
            self._collection, filter="", output_fields=_FIELDS, batch_size=_AT_ONCE, consistency_level="Strong"
        )
        while found := _next(pages):
            yield self._as_rows(found)
        pages.close()

    def count(self) -> int:
        (row,) = self._client.query(self._collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(row["count(*)"])

    def nearest(self, probe: NDArray[np.float32], count: int, scope: Scope) -> tuple[Rows, float]:
        (found,) = self._client.search(
            self._collection,
            data=[probe],
            anns_field=_VECTOR,
            limit=count,
            filter=_expression(scope),
            output_fields=_FIELDS,
            search_params={"metric_type": "IP"},
            consistency_level="Strong",
        )
        rows = self._as_rows([hit["entity"] for hit in found])
        return rows, float(found[-1]["distance"]) if len(rows) == count else -np.inf

    def _as_rows(self, found: Sequence[dict[str, Any]]) -> Rows:
        return Rows(
            np.array([each[_TEMPLATE] for each in found], np.int64),
            np.array([each[_IDENTITY] for each in found], np.int64),
            np.array([each[_VECTOR] for each in found], np.float32).reshape(-1, self._dimension),
        )

    def _create(self, index_type: str) -> None:
        library = _library()
        schema = library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_TEMPLATE, library.DataType.INT64, is_primary=True)
        schema.add_field(_IDENTITY, library.DataType.INT64)
        schema.add_field(_VECTOR, library.DataType.FLOAT_VECTOR, dim=self._dimension)
        index = self._client.prepare_index_params()
        index.add_index(_VECTOR, index_type=index_type, metric_type="IP")
        self._client.create_collection(self._collection, schema=schema, index_params=index, consistency_level="Strong")


class MilvusEngines:
    """The collections of a Milvus: "http://HOST:19530" for a cluster, the path of a file for Milvus Lite in this process."""

    def __init__(self, uri: str, *, index_type: str = "FLAT") -> None:
        """Raises EngineMissing: pymilvus is not installed; EngineUnavailable: there is no Milvus."""
        self._index_type = index_type
        library = _library()
        with named_errors():
            self._client: Any = _Named(library.MilvusClient(uri))

    def opened(self, collection: str, dimension: int) -> MilvusEngine:
        """The collection, made where there is none. Raises EngineUnavailable."""
        return MilvusEngine(self._client, collection, dimension, index_type=self._index_type)

    def names(self, prefix: str) -> list[str]:
        """The collections whose names begin so. Raises EngineUnavailable."""
        return [each for each in self._client.list_collections() if each.startswith(prefix)]

    def drop(self, collection: str) -> None:
        """Deletes a collection with all that is in it. Raises EngineUnavailable."""
        self._client.drop_collection(collection)

    def close(self) -> None:
        self._client.close()


class _Named:
    """A client of Milvus whose errors are ours."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def called(*words: Any, **options: Any) -> Any:
            with named_errors():
                return method(*words, **options)

        return called


@contextmanager
def named_errors() -> Generator[None]:
    """The library's errors as EngineUnavailable."""
    library = _library()
    try:
        yield
    except library.MilvusException as error:
        raise EngineUnavailable(str(error.message).splitlines()[0]) from None


def _next(pages: Any) -> Any:
    with named_errors():
        return pages.next()


def _library() -> Any:
    try:
        import pymilvus  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError:
        raise EngineMissing from None
    return pymilvus


def _parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _AT_ONCE] for start in range(0, len(numbers), _AT_ONCE))


def _expression(scope: Scope) -> str:
    conditions = []
    if scope.allowed is not None:
        conditions.append(f"{_IDENTITY} in {_listed(scope.allowed)}")
    if scope.excluded:
        conditions.append(f"{_IDENTITY} not in {_listed(scope.excluded)}")
    return " and ".join(conditions)


def _listed(numbers: Iterable[int]) -> str:
    return f"[{', '.join(str(int(number)) for number in sorted(numbers))}]"
