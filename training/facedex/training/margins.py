"""Classification on the sphere: how far a face is from the centre of each class, with a margin for its own.

With θ the angle between an embedding and the centre of a class, the logits of the other classes are s·cos θ, and that of
the own class is

    ArcFace     s·cos(θ + m)          Deng, Guo, Xue & Zafeiriou, CVPR 2019, eq. 3
    CosFace     s·(cos θ − m)         Wang et al., CVPR 2018, eq. 4
    SphereFace  s·ψ(θ)                Liu et al., CVPR 2017, eq. 7: (−1)^k cos(mθ) − 2k for kπ/m ≤ θ ≤ (k + 1)π/m

Plain softmax knows neither sphere nor margin: its logits are inner products of what the network gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST_COSINE: Final = 1 - 1e-6
"""The derivative of the arc cosine has a pole at 1."""


class MarginKind(StrEnum):
    """What the own class's logit is."""

    ARCFACE = "arcface"
    COSFACE = "cosface"
    SPHEREFACE = "sphereface"
    SOFTMAX = "softmax"


@dataclass(frozen=True, slots=True)
class Margin:
    """The margin m (radians for ArcFace, a cosine for CosFace, a factor for SphereFace) and the scale s."""

    kind: MarginKind
    margin: float
    scale: float

    @staticmethod
    def usual(kind: MarginKind) -> Margin:
        """The values of the papers; SphereFace with the margin that trains without annealing."""
        margins = {MarginKind.ARCFACE: 0.5, MarginKind.COSFACE: 0.35, MarginKind.SPHEREFACE: 1.7, MarginKind.SOFTMAX: 0}
        return Margin(kind, margins[kind], 64.0)

    def own_logit(self, cosine: Tensor) -> Tensor:
        """The own class's logit, divided by the scale, of cosines of any shape."""
        if self.kind is MarginKind.COSFACE:
            return cosine - self.margin
        clamped = cosine.clamp(-_LARGEST_COSINE, _LARGEST_COSINE)
        if self.kind is MarginKind.ARCFACE:
            return arcface_logit(clamped, self.margin)
        return sphereface_logit(clamped, self.margin)


def arcface_logit(cosine: Tensor, margin: float) -> Tensor:
    """cos(θ + m); beyond θ = π − m, where that would rise again, cos θ − m·sin m, as the authors' programs have it."""
    sine = (1 - cosine.square()).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > math.cos(math.pi - margin), shifted, cosine - margin * math.sin(margin))


def sphereface_logit(cosine: Tensor, margin: float) -> Tensor:
    """ψ(θ), which falls all the way from 1 at θ = 0; margins that are no whole numbers are allowed."""
    multiple = cosine.acos() * margin
    turns = (multiple / math.pi).floor().detach()
    sign = 1 - 2 * torch.remainder(turns, 2)
    return sign * multiple.cos() - 2 * turns


class MarginHead(nn.Module):
    """One centre a class, a row each of `centres` (classes, dimension). Needed in training only."""

    def __init__(self, classes: int, dimension: int, margin: Margin) -> None:
        super().__init__()
        self.margin = margin
        self.centres = nn.Parameter(torch.randn(classes, dimension) / math.sqrt(dimension))

    def logits(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        """Logits (n, classes) of embeddings (n, dimension) of any length whose classes (n,) are known."""
        if self.margin.kind is MarginKind.SOFTMAX:
            return embeddings @ self.centres.T
        cosines = functional.normalize(embeddings) @ functional.normalize(self.centres).T
        own = functional.one_hot(classes, len(self.centres)).bool()
        return self.margin.scale * torch.where(own, self.margin.own_logit(cosines), cosines)

    def forward(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        """The mean cross entropy, a scalar."""
        return functional.cross_entropy(self.logits(embeddings, classes), classes)
