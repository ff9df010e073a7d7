from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import faiss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Crew:
    """Threads that share the work of a search, one a core; every index of a process has the same crew.

    FAISS and NumPy let go of the interpreter's lock. What is given out must give nothing out itself. With the first crew,
    the linear algebra of this process no longer has threads of its own: they would wait, busily, for the same cores.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415  (its import changes the environment)

        threadpool_limits(1, user_api="blas")
        # OpenMP costs a single query 20 to 60 times, and is told so once in every thread.
        self._threads = ThreadPoolExecutor(
            self.size, thread_name_prefix="search", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )

    def map(self, work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
        """What `work` makes of each item, in order; the caller waits."""
        if self.size == 1 or len(items) <= 1:
            return one_after_the_other(work, items)
        return list(self._threads.map(work, items))


def one_after_the_other(work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    """What `Crew.map` does, without a crew."""
    return [work(item) for item in items]
