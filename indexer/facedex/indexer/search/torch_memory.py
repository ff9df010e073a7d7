"""Segments in the memory of a device, searched exhaustively with torch: a matrix product and the best of it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from facedex.indexer.search.device_memory import Copy

GROUP_ROWS: Final = 512
"""The best rows are in the groups whose best rows are best, so that few rows have to be sorted."""


class TorchCopy:
    """The rows (n, dimension) of one segment, filled up with rows of zeros to whole groups."""

    def __init__(self, vectors: NDArray[np.float16], device: torch.device) -> None:
        self.count = len(vectors)
        padded = -(-self.count // GROUP_ROWS) * GROUP_ROWS
        # A processor multiplies halves many times slower than singles.
        kind = torch.float16 if device.type == "cuda" else torch.float32
        self.rows = torch.zeros((padded, vectors.shape[1]), dtype=kind, device=device)
        self.rows[: self.count] = torch.from_numpy(np.array(vectors)).to(device)

    def erase(self, slot: int) -> None:
        self.rows[slot] = 0


class TorchMemory:
    """Copies of segments on one device, a `DeviceMemory`.

    Product after product is queued on the device, and waited for once.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        # One search at a time: each takes the device's whole bandwidth, and memory for its scores.
        self._searching = threading.Lock()

    def copy(self, vectors: NDArray[np.float16]) -> TorchCopy:
        return TorchCopy(vectors, self._device)

    def nearest(
        self,
        copies: Sequence[Copy],
        masks: Sequence[NDArray[np.bool_] | None],
        probes: NDArray[np.float32],
        *,
        count: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        own = [cast("TorchCopy", each) for each in copies]
        starts = np.cumsum([0, *(each.count for each in own)]).tolist()
        with self._searching, torch.inference_mode(), self._as_current():
            wanted = torch.from_numpy(probes).to(self._device, own[0].rows.dtype)
            found = [
                _best(each, mask, wanted, count=count, first=first)
                for each, mask, first in zip(own, masks, starts, strict=False)
            ]
            scores = torch.cat([each for each, _ in found], dim=1)
            positions = torch.cat([each for _, each in found], dim=1)
            best, places = scores.topk(min(count, starts[-1], scores.shape[1]), dim=1)
            return best.float().cpu().numpy(), positions.gather(1, places).cpu().numpy()

    def _as_current(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


def _best(
    copy: TorchCopy, mask: NDArray[np.bool_] | None, probes: Tensor, *, count: int, first: int
) -> tuple[Tensor, Tensor]:
    """Scores and positions (n, up to count) of the best rows of one copy, whose rows are counted from `first`."""
    scores = probes @ copy.rows.T
    if mask is not None:
        hidden = torch.from_numpy(~mask).to(scores.device)
        scores[:, : copy.count].masked_fill_(hidden, -torch.inf)
    scores[:, copy.count :] = -torch.inf
    grouped = scores.view(len(probes), -1, GROUP_ROWS)
    groups = grouped.amax(2).topk(min(count, grouped.shape[1]), dim=1).indices
    candidates = grouped.gather(1, groups[:, :, None].expand(-1, -1, GROUP_ROWS)).flatten(1)
    best, places = candidates.topk(min(count, candidates.shape[1]), dim=1)
    slots = groups.gather(1, places // GROUP_ROWS) * GROUP_ROWS + places % GROUP_ROWS
    return best, slots + first
