"""Turns that are shared: who has one acts for all who came while the last one acted."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class SharedTurns(Generic[Item, Result]):
    """Lets threads act one after the other, and groups those who wait.

    Nobody waits for company: who comes alone acts alone. `act` gets the items in the order in which they came, at most
    `at_most` of them, and returns what became of each.
    """

    def __init__(self, act: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, at_most: int) -> None:
        self._act = act
        self._at_most = at_most
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._is_taken = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def result_of(self, item: Item) -> Result:
        """Raises what became of it, where that is an error."""
        mine: _Waiting[Item, Result] = _Waiting(item)
        with self._changed:
            self._waiting.append(mine)
        while self._has_turn(mine):
            self._act_for_the_oldest()
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return mine.outcome

    def _has_turn(self, mine: _Waiting[Item, Result]) -> bool:
        """Waits; False where somebody else has acted for it."""
        with self._changed:
            self._changed.wait_for(lambda: mine.is_done or not self._is_taken)
            if mine.is_done:
                return False
            self._is_taken = True
            return True

    def _act_for_the_oldest(self) -> None:
        with self._changed:
            group = [self._waiting.popleft() for _ in range(min(self._at_most, len(self._waiting)))]
        outcomes: Sequence[Result | BaseException]
        try:
            outcomes = self._act([each.item for each in group])
        except BaseException as error:  # noqa: BLE001  (raised again by each who waits)
            outcomes = [error] * len(group)
        with self._changed:
            for each, outcome in zip(group, outcomes, strict=True):
                each.outcome, each.is_done = outcome, True
            self._is_taken = False
            self._changed.notify_all()


class _Waiting(Generic[Item, Result]):
    """An item, and what became of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | BaseException
        self.is_done = False
