"""Blocks with fewer channels between their two convolutions, begun from blocks with more: those are kept that count most.

A channel counts by how large it is, times the weights that read it. How large it is follows from its normalisation: before
the ReLU it is taken to be normally distributed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt
from typing import Final

import torch
from torch import Tensor

from facedex.training.backbones.compact import CompactNet, Residual

_INNER: Final = ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var")
"""Of a block's `change`: what has a row for each channel within."""
_READING: Final = "1.weight"


def narrowed(state: Mapping[str, Tensor], net: CompactNet) -> dict[str, Tensor]:
    """A state dict whose blocks have no more channels within than those of `net`; that of another network as it is."""
    fitting = dict(state)
    for number, layer in enumerate(net.features):
        place = f"features.{number}.change."
        if isinstance(layer, Residual) and _is_block(state, place):
            fitting |= _block(state, place, kept=layer.inner)
    return fitting


def _is_block(state: Mapping[str, Tensor], place: str) -> bool:
    """Whether what a block has within fits together; a file may hold anything."""
    if any(f"{place}{name}" not in state for name in (*_INNER, _READING)):
        return False
    within, reading = [state[f"{place}{name}"] for name in _INNER], state[f"{place}{_READING}"]
    return reading.ndim == 4 and all(each.ndim and len(each) == reading.shape[1] for each in within)


def _block(state: Mapping[str, Tensor], place: str, *, kept: int) -> dict[str, Tensor]:
    reading = state[f"{place}{_READING}"]
    size = root_mean_square(state[f"{place}0.1.weight"].float(), state[f"{place}0.1.bias"].float())
    counts = size * reading.float().transpose(0, 1).flatten(1).norm(dim=1)
    best = counts.topk(min(kept, len(counts))).indices.sort().values
    return {f"{place}{name}": state[f"{place}{name}"][best] for name in _INNER} | {
        f"{place}{_READING}": reading[:, best]
    }


def root_mean_square(deviation: Tensor, mean: Tensor) -> Tensor:
    """Of max(0, x), x normally distributed."""
    deviation = deviation.abs().clamp_min(torch.finfo(torch.float32).tiny)
    share = 0.5 * (1 + torch.erf(mean / deviation / sqrt(2)))
    density = torch.exp(-0.5 * (mean / deviation) ** 2) / sqrt(2 * pi)
    squares: Tensor = (mean**2 + deviation**2) * share + mean * deviation * density
    return squares.clamp_min(0).sqrt()
