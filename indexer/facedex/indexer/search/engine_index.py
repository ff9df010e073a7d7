"""A gallery's index whose rows lie in a vector engine on other machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from facedex.indexer.errors import EngineUnavailable
from facedex.indexer.search.code_choice import CodeChoice
from facedex.indexer.search.exact import Block
from facedex.indexer.search.remote import Judgement, RemoteIndex, Standing
from facedex.indexer.search.segment import HALF, Rows
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope
from facedex.indexer.set_digest import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.remote import Engine
    from facedex.indexer.search.segment import Segment
    from facedex.indexer.set_digest import SetDigest, TemplateDigester

DELIVERED: Final = Standing(0, 0)
PATIENCE_SECONDS: Final = 60.0
BETWEEN_ROUNDS_SECONDS: Final = 0.05


class EngineIndex:
    """A `GalleryIndex` over an `Engine`; `judge` holds rows against the store.

    Examinations read all rows from the engine, so they cost what it takes to move them here. With `is_anew`, rows that the
    engine holds already are sent again: whatever they were, they are right then.
    """

    def __init__(
        self,
        dimension: int,
        engine: Engine,
        judge: Callable[[Rows], Judgement],
        *,
        digester: TemplateDigester,
        operating_score: float,
        is_anew: bool = False,
    ) -> None:
        self._engine = engine
        self._judge = judge
        self._remote = RemoteIndex(dimension, engine, judge, is_anew=is_anew)
        self._digester = digester
        self._operating_score = operating_score
        self._count: int | None = None

    @property
    def dimension(self) -> int:
        return self._remote.dimension

    def __len__(self) -> int:
        """Counted when something was changed or delivered here; what other servers deliver meanwhile is counted then."""
        count = self._count
        if count is None:
            count = self._count = len(self._remote)
        return count

    @property
    def choice(self) -> CodeChoice:
        return CodeChoice(None, None, self._operating_score, engine="a vector engine")

    def aim_at(self, operating_score: float, /) -> None:
        self._operating_score = operating_score

    # Changes

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        self._remote.add(template_ids, identity_ids, vectors)
        self._count = None

    def erase(self, template_ids: Sequence[int]) -> None:
        self._remote.erase(template_ids)
        self._count = None

    def deliver(self) -> bool:
        if self._remote.standing == DELIVERED:
            return True
        standing = self._remote.deliver()
        self._count = None
        return standing == DELIVERED

    def settle(self) -> None:
        """Returns when the engine shows what it should, and nothing else.

        Raises:
            EngineUnavailable: it does not within a minute.

        """
        self._await_delivery()
        for rows in self._engine.pages():
            strays = rows.template_ids[~self._judge(rows).known].tolist()
            if strays:
                self.erase(strays)
        self._await_delivery()

    @property
    def holds_codes_of_erased(self) -> bool:
        return self._remote.standing.undead > 0

    def forget_erased(self) -> None:
        self._await_delivery()

    def _await_delivery(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.deliver():
            if time.monotonic() > deadline:
                raise EngineUnavailable("it does not show what it was sent")
            time.sleep(BETWEEN_ROUNDS_SECONDS)

    # Searches

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        return self._remote.search(probes, limit=limit, min_score=min_score, scope=scope)

    # Examinations

    @property
    def digest(self) -> SetDigest:
        return EMPTY.plus(self._rows().members(self._digester))

    def holds(self, template_id: int, /) -> bool:
        return self.row(template_id) is not None

    def row(self, template_id: int, /) -> Rows | None:
        found = self._remote.living_rows([self._remote.unseen_rows(), self._engine.rows([template_id])])
        found = found.taken(found.template_ids == template_id)
        return Rows(found.template_ids, found.identity_ids, found.vectors.astype(HALF)) if len(found) else None

    def parts(self) -> tuple[Block | Segment, ...]:
        rows = self._rows()
        block = Block(self.dimension, max(1, len(rows)))
        block.append(rows.template_ids, rows.identity_ids, rows.vectors)
        return (block,)

    def _rows(self) -> Rows:
        """All that a search looks through, each template once."""
        return self._remote.living_rows([self._remote.unseen_rows(), *self._engine.pages()])
