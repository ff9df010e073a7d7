"""An index whose vectors lie in a vector engine on other machines.

The engine is trusted with speed alone. What it has not shown to hold is searched here, what it may still hold although it was
erased is left out here, every answer is held against the store, and every score is computed anew from the vector that came
with it. So an engine that shows changes late, in another order or twice changes no answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from facedex.indexer.search.exact import ROUNDING, ExactIndex, columns, exact_scores
from facedex.indexer.search.ranking import are_first, best_of_each_identity
from facedex.indexer.search.segment import Rows
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

FIRST_COUNT: Final = 64
WIDENING: Final = 8
ALLOWED_AT_ONCE: Final = 10_000
"""Identities named in one question to the engine."""
MOST_OUTGOING: Final = 50_000
"""Whoever adds more waits until they are sent."""


class Engine(Protocol):
    """A collection of templates in a vector engine. Each method may raise what the engine's own library raises.

    Changes may become visible late, in any order. Doing one twice does nothing.
    """

    @property
    def most(self) -> int:
        """The largest `count` of a search."""
        ...

    def upsert(self, rows: Rows) -> None: ...

    def rows(self, template_ids: Sequence[int]) -> Rows:
        """Those of these that it shows."""
        ...

    def pages(self) -> Iterator[Rows]:
        """All that it shows, so many at a time as memory holds well."""
        ...

    def delete(self, template_ids: Sequence[int]) -> None: ...

    def held(self, template_ids: Sequence[int]) -> set[int]:
        """Which of these it shows."""
        ...

    def count(self) -> int:
        """About how many templates it shows."""
        ...

    def nearest(self, probe: NDArray[np.float32], count: int, scope: Scope) -> tuple[Rows, float]:
        """The `count` nearest rows of the scope, and the score of the last of them; minus infinity where there are no more."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the engine is behind: templates that it does not show yet, and erased ones that it may still show."""

    unseen: int
    undead: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the store says of rows (n,): which templates it holds, and of which of those the row is what it holds."""

    known: NDArray[np.bool_]
    genuine: NDArray[np.bool_]


class RemoteIndex:
    """A `TemplateIndex` over an `Engine`.

    `judge` holds rows against the store. `deliver` sends what changed and takes note of what has arrived; until
    then it is kept in memory, so it is called again and again. With `is_anew`, what the engine shows already is sent again.
    """

    def __init__(
        self,
        dimension: int,
        engine: Engine,
        judge: Callable[[Rows], Judgement],
        *,
        is_anew: bool = False,
    ) -> None:
        self._is_anew = is_anew
        self._dimension = dimension
        self._engine = engine
        self._judge = judge
        self._unseen = ExactIndex(dimension)
        self._undead: set[int] = set()
        self._outgoing: dict[int, tuple[int, NDArray[np.float32]]] = {}
        self._changing = threading.RLock()

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def standing(self) -> Standing:
        with self._changing:
            return Standing(len(self._unseen), len(self._undead))

    def __len__(self) -> int:
        """Exact when all has been delivered; the engine itself counts what it holds."""
        with self._changing:
            hidden = len(self._engine.held(sorted({*self._outgoing, *self._undead})))
            return self._engine.count() - hidden + len(self._unseen)

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        with self._changing:
            given = zip(template_ids, zip(identity_ids, vectors, strict=True), strict=True)
            shown = set[int]() if self._is_anew else self._shown(dict(given)) - self._undead
            fresh = np.array([each not in shown and each not in self._outgoing for each in template_ids], np.bool_)
            numbers = np.asarray(template_ids, np.int64)[fresh].tolist()
            identities = np.asarray(identity_ids, np.int64)[fresh].tolist()
            rows = np.array(vectors[fresh], np.float32)
            self._undead.difference_update(numbers)
            self._unseen.add(numbers, identities, rows)
            self._outgoing.update(zip(numbers, zip(identities, rows, strict=True), strict=True))
        if len(self._outgoing) > MOST_OUTGOING:
            self.deliver()

    def erase(self, template_ids: Sequence[int]) -> None:
        with self._changing:
            self._unseen.erase(template_ids)
            for each in template_ids:
                self._outgoing.pop(each, None)
            self._undead |= set(template_ids)

    def deliver(self) -> Standing:
        """One round: sends what the engine does not show, and forgets here what it does."""
        with self._changing:
            outgoing, undead = dict(self._outgoing), sorted(self._undead)
        if outgoing:
            self._engine.upsert(_rows(outgoing))
        if undead:
            self._engine.delete(undead)
        shown = self._shown(outgoing)
        haunting = self._engine.held(undead)
        with self._changing:
            arrived = [number for number in shown if number in self._outgoing]
            for number in arrived:
                del self._outgoing[number]
            self._unseen.erase(arrived)
            self._undead -= set(undead) - haunting
        return self.standing

    def _shown(self, rows: Mapping[int, tuple[int, NDArray[np.float32]]]) -> set[int]:
        """Which of these the engine shows as they are: an engine that outlived an older copy of the store has others."""
        found = self._engine.rows(list(rows))
        people = zip(found.template_ids.tolist(), found.identity_ids.tolist(), found.vectors, strict=True)
        return {
            number
            for number, identity_id, vector in people
            if rows[number][0] == identity_id and np.array_equal(rows[number][1], vector)
        }

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        return [self._search_one(probe, limit=limit, min_score=min_score, scope=scope) for probe in probes]

    def _search_one(self, probe: NDArray[np.float32], *, limit: int, min_score: float, scope: Scope) -> tuple[Hit, ...]:
        # Looked at before the engine: what arrives there meanwhile is found twice, and not never.
        (unseen,) = self._unseen.search(probe[None], limit=limit, min_score=min_score, scope=scope)
        hits = _best([*unseen], limit)
        for part in _parts(scope):
            hits = _best([*hits, *self._from_engine(probe, limit=limit, min_score=min_score, scope=part)], limit)
        return hits

    def _from_engine(
        self, probe: NDArray[np.float32], *, limit: int, min_score: float, scope: Scope
    ) -> tuple[Hit, ...]:
        """Asks for more and more, until nothing that was not looked at can change the list, not even by a tie."""
        known: tuple[Hit, ...] = ()
        count = min(self._engine.most, max(FIRST_COUNT, 4 * limit))
        while True:
            nearest, last = self._engine.nearest(probe, count, scope)
            rows = self._living(nearest)
            scores = exact_scores(rows.vectors, probe)
            found = best_of_each_identity(rows.template_ids, rows.identity_ids, scores, min_score=min_score)
            hits = _best([*known, *found], limit)
            bound = last + ROUNDING
            if bound < min_score or (len(hits) >= limit and bound < hits[limit - 1].score):
                return hits
            if count < self._engine.most:
                count = min(self._engine.most, WIDENING * count)
                continue
            done = {hit.identity_id for hit in found}
            if not found:  # it has to forget the erased first, and whatever else somebody put there is looked past
                done = self._owners_but_for_erased(nearest)
                self.deliver()
            # As much as it gives at once, and still few people: the rest without those who are known.
            known, scope = hits, Scope(scope.allowed, scope.excluded | done)

    def _owners_but_for_erased(self, rows: Rows) -> set[int]:
        """Identities of rows that are not about to be deleted in the engine."""
        with self._changing:
            undead = set(self._undead)
        owners = zip(rows.template_ids.tolist(), rows.identity_ids.tolist(), strict=True)
        return {identity for number, identity in owners if number not in undead}

    def unseen_rows(self) -> Rows:
        """What the engine does not show yet."""
        with self._changing:
            return self._unseen.rows()

    def living_rows(self, parts: Iterable[Rows]) -> Rows:
        """Those rows that a search may return, each template once."""
        rows = Rows(*(np.concatenate(each) for each in zip(*map(columns, parts), strict=True)))
        return self._living(rows.taken(are_first(rows.template_ids)))

    def _living(self, rows: Rows) -> Rows:
        """Those that are as the store holds them; whom it does not hold at all is deleted in the engine again."""
        with self._changing:
            undead = set(self._undead)
        rows = rows.taken(np.array([number not in undead for number in rows.template_ids.tolist()], np.bool_))
        judgement = self._judge(rows)
        haunting = rows.template_ids[~judgement.known].tolist()
        if haunting:
            self.erase(haunting)
        return rows.taken(judgement.genuine)


def _parts(scope: Scope) -> Iterator[Scope]:
    """Scopes that name few enough identities each."""
    if scope.allowed is None:
        yield scope
        return
    allowed = sorted(scope.allowed - scope.excluded)
    for start in range(0, len(allowed), ALLOWED_AT_ONCE):
        yield Scope(frozenset(allowed[start : start + ALLOWED_AT_ONCE]))


def _best(hits: Sequence[Hit], limit: int) -> tuple[Hit, ...]:
    best: dict[int, Hit] = {}
    for hit in sorted(hits, key=lambda each: (-each.score, each.template_id)):
        best.setdefault(hit.identity_id, hit)
    return tuple(best.values())[:limit]


def _rows(outgoing: Mapping[int, tuple[int, NDArray[np.float32]]]) -> Rows:
    return Rows(
        np.fromiter(outgoing, np.int64, len(outgoing)),
        np.array([identity_id for identity_id, _ in outgoing.values()], np.int64),
        np.array([vector for _, vector in outgoing.values()], np.float32),
    )
