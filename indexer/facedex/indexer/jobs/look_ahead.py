"""Looking at items ahead of their turn."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Items that are looked at ahead of those that are written.
MOST_AHEAD = 128
# Items that wait for a thread to look at them: a tar's come with their photographs, and few of them are to be in memory.
UNSEEN_PER_WORKER = 4
LOOK_SECONDS = 0.3

Item = TypeVar("Item")
Kept = TypeVar("Kept")
Looked = TypeVar("Looked")


class LookAhead(Generic[Item, Kept, Looked]):
    """What is kept of items, and what was seen of them, in order; threads look on while the last ones are written.

    A thread of its own reads the items, so that the others always have something to look at.
    """

    def __init__(
        self,
        items: Iterator[Item],
        *,
        look: Callable[[Item], Looked],
        kept: Callable[[Item], Kept],
        workers: int,
        checkpoint: Callable[[], None],
    ) -> None:
        self._items = items
        self._look = look
        self._kept = kept
        self._checkpoint = checkpoint
        self._most_unseen = UNSEEN_PER_WORKER * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="enrol")
        self._reader = threading.Thread(target=self._read, name="enrol-reader", daemon=True)
        self._changed = threading.Condition()
        self._ahead: deque[tuple[Kept, Future[Looked]]] = deque()
        self._unseen = 0
        self._is_ended = False
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(None)
        self._reader.join()
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Kept, Looked]]:
        """Raises what `checkpoint` raises, and what reading the items raised, once those before had their turn."""
        while self._is_there():
            item, future = self._taken()
            while not wait([future], timeout=LOOK_SECONDS).done:
                self._checkpoint()
            yield item, future.result()
        if self._error is not None:
            raise self._error

    def _is_there(self) -> bool:
        """Whether there is another one; waits for it."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._is_ended or self._ahead, timeout=LOOK_SECONDS):
                self._checkpoint()
            return bool(self._ahead)

    def _taken(self) -> tuple[Kept, Future[Looked]]:
        with self._changed:
            self._changed.notify_all()
            return self._ahead.popleft()

    # The thread that reads

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._add(item):
                    return
            self._end(None)
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that asks)
            self._end(error)

    def _add(self, item: Item) -> bool:
        """False where nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_ended or self._has_room())
            if self._is_ended:
                return False
            future = self._pool.submit(self._look, item)
            self._ahead.append((self._kept(item), future))
            self._unseen += 1
            self._changed.notify_all()
        future.add_done_callback(self._note_seen)
        return True

    def _has_room(self) -> bool:
        return len(self._ahead) < MOST_AHEAD and self._unseen < self._most_unseen

    def _note_seen(self, _: Future[Looked]) -> None:
        with self._changed:
            self._unseen -= 1
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error = True, error
            self._changed.notify_all()
