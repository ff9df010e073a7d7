"""Remote indexes that tests may use like local ones, and an engine that shows changes late and in another order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tests.indexer.search.oracle import DIMENSION

from facedex.indexer.search.exact import exact_scores
from facedex.indexer.search.remote import Engine, Judgement, RemoteIndex
from facedex.indexer.search.segment import Rows
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope


class Kept:
    """A `TemplateIndex`: a remote index with the store that it asks, and a worker that delivers after each change."""

    def __init__(self, dimension: int, engine: Engine) -> None:
        self.living: set[int] = set()
        self.index = RemoteIndex(dimension, engine, self._judged)

    @property
    def dimension(self) -> int:
        return self.index.dimension

    def __len__(self) -> int:
        return len(self.index)

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        self.living |= set(template_ids)
        self.index.add(template_ids, identity_ids, vectors)
        self.index.deliver()

    def erase(self, template_ids: Sequence[int]) -> None:
        self.living -= set(template_ids)
        self.index.erase(template_ids)
        self.index.deliver()

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        return self.index.search(probes, limit=limit, min_score=min_score, scope=scope)

    def _judged(self, rows: Rows) -> Judgement:
        known = np.array([number in self.living for number in rows.template_ids.tolist()], np.bool_)
        return Judgement(known, known)


class LateEngine:
    """An engine in memory. Each time that it is asked, some of what it was sent happens, in any order, some of it twice."""

    most = 40

    def __init__(self, chance: random.Random, dimension: int = DIMENSION) -> None:
        self._chance = chance
        self._dimension = dimension
        self._pending: list[Callable[[], None]] = []
        self._rows: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def upsert(self, rows: Rows) -> None:
        self._pending += [partial(self._put, rows, row) for row in range(len(rows))]

    def delete(self, template_ids: Sequence[int]) -> None:
        self._pending += [partial(self._drop, number) for number in template_ids]

    def held(self, template_ids: Sequence[int]) -> set[int]:
        self._let_some_happen()
        return self._rows.keys() & set(template_ids)

    def rows(self, template_ids: Sequence[int]) -> Rows:
        self._let_some_happen()
        return _stacked(
            {number: self._rows[number] for number in template_ids if number in self._rows}, self._dimension
        )

    def pages(self) -> Iterator[Rows]:
        self._let_some_happen()
        numbers = sorted(self._rows)
        for start in range(0, len(numbers), self.most):
            yield self.rows(numbers[start : start + self.most])

    def count(self) -> int:
        return len(self._rows)

    def nearest(self, probe: NDArray[np.float32], count: int, scope: Scope) -> tuple[Rows, float]:
        self._let_some_happen()
        rows = _stacked(
            {
                number: row
                for number, row in self._rows.items()
                if (scope.allowed is None or row[0] in scope.allowed) and row[0] not in scope.excluded
            },
            len(probe),
        )
        scores = exact_scores(rows.vectors, probe)
        best = np.argsort(-scores, kind="stable")[:count]
        return rows.taken(best), float(scores[best[-1]]) if len(best) == count else -np.inf

    def happen(self) -> None:
        """All that is pending, in the order in which it was sent."""
        for change in self._pending:
            change()
        self._pending.clear()

    def _put(self, rows: Rows, row: int) -> None:
        self._rows[int(rows.template_ids[row])] = (
            int(rows.identity_ids[row]),
            np.asarray(rows.vectors[row], np.float32),
        )

    def _drop(self, number: int) -> None:
        self._rows.pop(number, None)

    def _let_some_happen(self) -> None:
        self._chance.shuffle(self._pending)
        happening = self._pending[: self._chance.randint(0, len(self._pending))]
        again = happening[: self._chance.randint(0, 2)]
        self._pending = [*self._pending[len(happening) :], *again]
        for change in happening:
            change()


def _stacked(rows: dict[int, tuple[int, NDArray[np.float32]]], dimension: int) -> Rows:
    return Rows(
        np.fromiter(rows, np.int64, len(rows)),
        np.array([identity_id for identity_id, _ in rows.values()], np.int64),
        np.array([vector for _, vector in rows.values()], np.float32).reshape(-1, dimension),
    )
