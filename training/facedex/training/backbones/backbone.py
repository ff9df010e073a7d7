"""The backbones by name, and what each expects of its input."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from torch import nn

from facedex.training.backbones.compact import CompactNet, CompactShape
from facedex.training.backbones.evolve import EvolveIR50
from facedex.training.backbones.iresnet import IResNet
from facedex.training.backbones.mobilefacenet import MobileFaceNet


class BackboneName(StrEnum):
    """Networks from a crop to a vector, smallest first."""

    TINY = "tiny"
    """For trying things out: a second of training shows whether it works."""
    COMPACT = "compact"
    COMPACT_WIDE = "compact-wide"
    COMPACT_MIRRORED = "compact-mirrored"
    """The built-in embedder's: its first five layers look at the mirror image too, and two of them are narrower within."""
    MOBILEFACENET = "mobilefacenet"
    IRESNET18 = "iresnet18"
    IRESNET34 = "iresnet34"
    IRESNET50 = "iresnet50"
    IRESNET100 = "iresnet100"
    EVOLVE_IR50 = "evolve-ir50"


_COMPACT: Final = {
    BackboneName.TINY: CompactShape(channels=(8, 16, 32), blocks=(1, 1, 1), hidden=32),
    BackboneName.COMPACT: CompactShape(),
    BackboneName.COMPACT_WIDE: CompactShape(channels=(32, 96, 192)),
    BackboneName.COMPACT_MIRRORED: CompactShape(channels=(32, 96, 192), inner=(32, 80, 192), mirrored=5),
}
_IRESNET_BLOCKS: Final = {
    BackboneName.IRESNET18: (2, 2, 2, 2),
    BackboneName.IRESNET34: (3, 4, 6, 3),
    BackboneName.IRESNET50: (3, 4, 14, 3),
    BackboneName.IRESNET100: (3, 13, 30, 3),
}


def make_backbone(name: BackboneName, *, dimension: int, side: int = 112) -> nn.Module:
    """A network with random weights: crops (n, 3, side, side) to vectors (n, dimension) of any length."""
    if name in _IRESNET_BLOCKS:
        return IResNet(_IRESNET_BLOCKS[name], dimension=dimension, side=side)
    if name is BackboneName.EVOLVE_IR50:
        return EvolveIR50(dimension=dimension, side=side)
    if name is BackboneName.MOBILEFACENET:
        return MobileFaceNet(dimension, side=side)
    return CompactNet(dimension, side=side, shape=_COMPACT[name])
