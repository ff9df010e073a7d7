"""Data keys made in groups, before they are needed: one costs as much of the disk as many."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.store.key_store import DataKey, KeyStore
    from facedex.indexer.store.transform_rows import KeyPlace

# Nobody gets a key that was made longer ago, so a rotation that waits for so long has seen every key of before.
LIFE_SECONDS = 0.5
MOST = 256


@dataclass(slots=True)
class _Stock:
    """Keys for one gallery, each with the moment from which on it is too old; and how many were made last, and when."""

    keys: deque[tuple[float, DataKey]] = field(default_factory=deque[tuple[float, "DataKey"]])
    made: int = 0
    made_at: float = -LIFE_SECONDS


class KeysAhead:
    """Makes one key for whoever enrols now and then, twice as many each time they are used up at once, else half as many.

    Keys that nobody took are destroyed by `Encryption.sweep`, as those of enrolments that died.
    """

    def __init__(self, keys: KeyStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._stocks: dict[KeyPlace, _Stock] = {}
        self._taking = threading.Lock()

    def take(self, place: KeyPlace, count: int) -> list[DataKey]:
        """So many keys that are on disk and that nobody else gets. The caller holds the gallery's lock."""
        with self._taking:
            stock = self._stocks.setdefault(place, _Stock())
            while stock.keys and stock.keys[0][0] <= self._clock():
                stock.keys.popleft()
            if len(stock.keys) < count:
                self._fill(place, stock, least=count - len(stock.keys))
            return [stock.keys.popleft()[1] for _ in range(count)]

    def _fill(self, place: KeyPlace, stock: _Stock, *, least: int) -> None:
        now = self._clock()
        lives = int((now - stock.made_at) / LIFE_SECONDS)
        wanted = 2 * stock.made if lives == 0 else stock.made >> lives
        stock.made = max(least, 1, min(MOST, wanted))
        stock.made_at = now
        made = self._keys.create_all(place, count=stock.made)
        stock.keys.extend((now + LIFE_SECONDS, each) for each in made)
