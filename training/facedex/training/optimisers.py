"""What turns gradients into steps: AdamW, and Muon for the layers that are matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from math import sqrt
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_FORGETTING: Final = (0.9, 0.99)
_MOMENTUM: Final = 0.95
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: five rounds of it bring every singular value near 1, from wherever in (0, 1] it begins."""
_ROUNDS: Final = 5
_SIZE_OF_ADAM: Final = 0.2
"""Root mean square of a step of AdamW for a learning rate of 1, as Liu et al. (2025) measured it."""
_SMALLEST_MATRIX: Final = 32


class OptimiserName(StrEnum):
    """How the weights learn."""

    ADAMW = "adamw"
    MUON = "muon"


class Muon(Optimizer):
    """Momentum made orthogonal, so that all directions of a layer learn alike (Jordan et al., 2024).

    Kernels of convolutions are matrices here: output channels by all that they see. Steps are as large as AdamW's (Liu et
    al., 2025), so that one learning rate and one weight decay serve both.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Every weight that has a gradient."""
        del closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["weight_decay"])

    def _move(self, weight: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = torch.lerp(gradient, momentum, _MOMENTUM).flatten(1)
        step = orthogonalised(ahead) * (_SIZE_OF_ADAM * sqrt(max(ahead.shape)))
        weight.mul_(1 - rate * decay).sub_(step.reshape(weight.shape), alpha=rate)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix (m, n) with all its singular values near 1: from 0.7 to 1.2."""
    is_wide = matrix.shape[0] <= matrix.shape[1]
    wide: Tensor = matrix if is_wide else matrix.T
    wide = wide / wide.norm().clamp_min(1e-7)
    first, third, fifth = _QUINTIC
    for _ in range(_ROUNDS):
        square = wide @ wide.T
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    return wide if is_wide else wide.T


def optimisers_of(network: nn.Module, name: OptimiserName, *, decay: float) -> tuple[Optimizer, ...]:
    """For all that learns in a network. Weights decay; biases and what normalises do not."""
    learning = [each for each in network.parameters() if each.requires_grad]
    weights = [each for each in learning if each.ndim > 1]
    matrices = list(_matrices(weights)) if name is OptimiserName.MUON else []
    known = {id(each) for each in matrices}
    groups: list[dict[str, Any]] = [
        {"params": [each for each in weights if id(each) not in known], "weight_decay": decay},
        {"params": [each for each in learning if each.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = AdamW([each for each in groups if each["params"]], lr=0.0, betas=_FORGETTING)
    return (adam, Muon([{"params": matrices, "weight_decay": decay}], lr=0.0)) if matrices else (adam,)


def _matrices(weights: Iterable[nn.Parameter]) -> Iterator[nn.Parameter]:
    """Those whose rows and columns are many; kernels of one channel each are no matrix."""
    for each in weights:
        rows, columns = each.flatten(1).shape
        is_depthwise = each.ndim == 4 and each.shape[1] == 1
        if min(rows, columns) >= _SMALLEST_MATRIX and not is_depthwise:
            yield each
