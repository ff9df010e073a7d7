"""Small networks for tests."""

from __future__ import annotations

import torch

from facedex.training.backbones.compact import CompactNet, CompactShape

SIDE = 32


def trained(shape: CompactShape, *, seed: int) -> CompactNet:
    """As it is after some training: no normalisation is any more what it was at first."""
    torch.manual_seed(seed)
    net = CompactNet(16, side=SIDE, shape=shape)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "var" in name else value.add_(0.2 * torch.randn_like(value))
    return net.eval()
