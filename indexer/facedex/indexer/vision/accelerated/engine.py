"""A module of torch on one device: weights and pictures in one precision, transfers through pinned memory, replayed runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Pictures = NDArray[np.float32]
Outputs = tuple[Tensor, ...]
MOST_AT_ONCE: Final = 64
"""Pictures of one batch: more are hardly faster, and the first of them would wait for the last."""
COMMON_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""Sizes of batches that are recorded; one in between is filled up to the next."""
WARM_UP_RUNS: Final = 3


class Precision(Enum):
    """What weights and pictures are kept in on the device."""

    SINGLE = torch.float32
    HALF = torch.float16
    BRAIN = torch.bfloat16


class Recorder(Protocol):
    """Records what a device does for one size of a batch, so that it can be done again without being told each step."""

    def record(self, module: nn.Module, example: Tensor) -> Callable[[Tensor], Outputs]:
        """Something that computes the module of tensors like the example. Raises RuntimeError where it cannot."""
        ...


class CudaRecorder:
    """Records CUDA graphs."""

    def record(self, module: nn.Module, example: Tensor) -> Callable[[Tensor], Outputs]:
        kept = example.clone(memory_format=torch.channels_last)
        device = example.device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # libraries choose their ways in the first runs, which cannot be recorded
            for _ in range(WARM_UP_RUNS):
                module(kept)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on using the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs: Outputs = module(kept)

        def replay(pictures: Tensor) -> Outputs:
            kept.copy_(pictures, non_blocking=True)
            graph.replay()
            return outputs

        return replay


@dataclass(frozen=True, slots=True)
class Started:
    """A batch that the device works on."""

    outputs: tuple[Tensor, ...]
    """In host memory; they hold what they shall once `arrived` has happened."""
    count: int
    arrived: Any
    """An event of CUDA; None where nothing has to be waited for."""

    def result(self) -> list[NDArray[np.float32]]:
        """The outputs, each with a row a picture. Waits for them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return [each.numpy()[: self.count].copy() for each in self.outputs]


class Engine:
    """Runs one module on one device, for one thread at a time.

    Two batches may be under way: while the device works on one, the next is put into the other half of the staging memory.
    """

    def __init__(
        self,
        module: nn.Module,
        device: str,
        precision: Precision,
        *,
        recorded_shape: tuple[int, int] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorded_shape` is height and width of the pictures whose batches are recorded; None: of no pictures."""
        self._device = torch.device(device)
        self._precision = precision
        self._is_cuda = self._device.type == "cuda"
        # In place and for good: a weight that several engines share would be converted by the last of them.
        moved: Any = module.eval().to(self._device, precision.value)
        self._module: nn.Module = moved.to(memory_format=torch.channels_last)
        self._recorded_shape = recorded_shape
        self._recorder = recorder if recorder is not None else CudaRecorder() if self._is_cuda else None
        self._replays: dict[int, Callable[[Tensor], Outputs] | None] = {}
        self._staging: list[Tensor] = []
        self._turn = 0

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def precision(self) -> Precision:
        return self._precision

    def record_all(self) -> None:
        """Records every common size now, so that no request waits for it."""
        if self._recorded_shape is not None:
            with torch.inference_mode(), self._as_current():
                for size in COMMON_SIZES:
                    self._replay_of(size)

    def run(self, pictures: Pictures) -> list[NDArray[np.float32]]:
        """The outputs for pictures (n, 3, height, width), n up to `MOST_AT_ONCE`."""
        return self.start([pictures]).result()

    def start(self, parts: Sequence[Pictures]) -> Started:
        """Begins a batch of these parts (n, 3, height, width). Of two batches under way, the first has to be asked for first."""
        count = sum(len(part) for part in parts)
        with torch.inference_mode(), self._as_current():
            staged = self._staged(parts, count)
            pictures = staged.to(self._device, non_blocking=True)
            pictures = pictures.to(self._precision.value, memory_format=torch.channels_last)
            return self._fetched(self._computed(pictures), count)

    def _as_current(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self._device) if self._is_cuda else nullcontext()

    def _staged(self, parts: Sequence[Pictures], count: int) -> Tensor:
        height, width = parts[0].shape[2:]
        size = self._size_of(count, (height, width))
        staging = self._half_of_staging((height, width), size)
        filled = staging.numpy()
        start = 0
        for part in parts:
            filled[start : start + len(part)] = part
            start += len(part)
        filled[count:] = 0
        return staging

    def _size_of(self, count: int, shape: tuple[int, int]) -> int:
        if self._recorder is None or shape != self._recorded_shape:
            return count
        return next(size for size in COMMON_SIZES if size >= count)

    def _half_of_staging(self, shape: tuple[int, int], size: int) -> Tensor:
        """Memory that the device does not read any more, for so many pictures of this height and width."""
        if shape != self._recorded_shape:
            return torch.empty((size, 3, *shape))
        self._turn = 1 - self._turn
        if not self._staging:
            self._staging = [torch.empty((MOST_AT_ONCE, 3, *shape), pin_memory=self._is_cuda) for _ in range(2)]
        return self._staging[self._turn][:size]

    def _computed(self, pictures: Tensor) -> Outputs:
        is_common = tuple(pictures.shape[2:]) == self._recorded_shape
        replay = self._replay_of(len(pictures)) if is_common else None
        outputs: Outputs = self._module(pictures) if replay is None else replay(pictures)
        return outputs

    def _replay_of(self, size: int) -> Callable[[Tensor], Outputs] | None:
        if self._recorder is None or self._recorded_shape is None:
            return None
        if size not in self._replays:
            example = torch.zeros((size, 3, *self._recorded_shape), device=self._device, dtype=self._precision.value)
            try:
                self._replays[size] = self._recorder.record(self._module, example)
            except RuntimeError as problem:  # the answers are the same, only slower
                logger.warning("batches of %d cannot be recorded on %s: %s", size, self._device, problem)
                self._replays[size] = None
        return self._replays[size]

    def _fetched(self, outputs: Outputs, count: int) -> Started:
        if not self._is_cuda:
            return Started(tuple(each.float().contiguous() for each in outputs), count, None)
        # In the device's own order, so before the next replay writes over them.
        fetched = tuple(_to_pinned(each.float().contiguous()) for each in outputs)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self._device))
        return Started(fetched, count, arrived)


def _to_pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def compute_exactly() -> None:
    """Single precision means single precision: by default torch lets convolutions round to 10 bits on newer devices."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
