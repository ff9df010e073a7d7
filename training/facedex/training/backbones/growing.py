"""A deeper network that begins as what a shallower one has become.

What a block of residuals adds is normalised last; where weight and bias of that are nought, the block hands on what it was given.
So a grown network computes exactly what the one before it did, and learns from there what that had no room for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from facedex.training.backbones.compact import LAST_NORMALISATION, CompactNet, Residual

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

_FEATURES = "features."


def grown(state: Mapping[str, Tensor], net: CompactNet) -> dict[str, Tensor]:
    """The weights of a net of the same channels with as many blocks in each stage, or fewer, as a state dict of `net`.

    Raises:
        ValueError: it has another number of stages, or more blocks in one of them.

    """
    here = _stages(isinstance(layer, Residual) for layer in net.features)
    there = _stages(f"{_FEATURES}{number}.{LAST_NORMALISATION}.weight" in state for number in range(_layers(state)))
    pairs = list(zip(there, here, strict=True))
    if any(len(before) > len(after) for before, after in pairs):
        raise ValueError("the net that is there has more blocks than this one")
    places = {old: new for before, after in pairs for old, new in zip(before, after, strict=False)}
    added = [number for before, after in pairs for number in after[len(before) :]]
    return {**_silent(net, added), **{_moved(name, places): value for name, value in state.items()}}


def _layers(state: Mapping[str, Tensor]) -> int:
    return 1 + max((_number(name) for name in state if name.startswith(_FEATURES)), default=-1)


def _number(name: str) -> int:
    return int(name.split(".")[1])


def _stages(are_blocks: Iterable[bool]) -> list[list[int]]:
    """The numbers of the layers of each stage: a convolution, and the blocks behind it."""
    stages: list[list[int]] = []
    for number, is_block in enumerate(are_blocks):
        if is_block and stages:
            stages[-1].append(number)
        else:
            stages.append([number])
    return stages


def _silent(net: CompactNet, numbers: Iterable[int]) -> dict[str, Tensor]:
    """The blocks of these numbers as they are, but that they add nothing."""
    noughts = {f"{LAST_NORMALISATION}.weight", f"{LAST_NORMALISATION}.bias"}
    return {
        f"{_FEATURES}{number}.{name}": torch.zeros_like(value) if name in noughts else value
        for number in numbers
        for name, value in net.features[number].state_dict().items()
    }


def _moved(name: str, places: Mapping[int, int]) -> str:
    if not name.startswith(_FEATURES):
        return name
    _, number, rest = name.split(".", 2)
    return f"{_FEATURES}{places[int(number)]}.{rest}"
