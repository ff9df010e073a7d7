"""The seam between segments and a device that keeps copies of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

MOST_FETCHED = 2_048
"""Rows that one search fetches from a device; one that needs more is done exactly on the processor."""
ROUNDING = 2e-3
"""Scores of a device are those of a probe in half precision, rounded to half precision: each is off by 2⁻¹¹ at most, and so
by 1e-3 together. Twice that is allowed for."""


class Copy(Protocol):
    """The rows of one segment on a device."""

    def erase(self, slot: int) -> None:
        """The vector of an erased person does not stay in the device's memory either."""
        ...


class DeviceMemory(Protocol):
    """Keeps copies of segments, and finds the rows of them that are nearest to a probe. Any number of threads may ask."""

    def copy(self, vectors: NDArray[np.float16]) -> Copy:
        """A copy of rows (n, dimension)."""
        ...

    def nearest(
        self,
        copies: Sequence[Copy],
        masks: Sequence[NDArray[np.bool_] | None],
        probes: NDArray[np.float32],
        *,
        count: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and positions (n, up to count) of the nearest rows of all copies, best first, right to `ROUNDING`.

        Positions count through the copies in their order. Rows outside a mask score minus infinity; None: all are seen.
        Fewer than `count` where there are no more rows.
        """
        ...
