"""Losses that make a small network see what a teacher sees. All vectors are unit vectors, a row a face."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST_SHARE: Final = 1e-9


def cosine_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 − cosine between student and teacher, both (n, dimension)."""
    return 1 - (embeddings * targets).sum(dim=1).mean()


def relational_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of the cosines between the faces of a batch: who resembles whom, wherever they lie.

    After Tung & Mori, ICCV 2019, and Park et al., CVPR 2019. The dimensions of student and teacher may differ.
    """
    rows, columns = torch.triu_indices(len(targets), len(targets), offset=1, device=targets.device)
    seen, taught = embeddings @ embeddings.T, targets @ targets.T
    return (seen[rows, columns] - taught[rows, columns]).square().mean()


def resemblance_loss(embeddings: Tensor, targets: Tensor, bank: Tensor, *, scale: float) -> Tensor:
    """Kullback-Leibler divergence of whom the student takes a face for, among many, from whom the teacher does.

    embeddings and targets (n, dimension); bank (m, dimension) holds the teacher's vectors of other faces. Both opinions are
    softmax(scale · cosine) over the targets and the bank. The bank gives what cosine alone cannot: the order of strangers.
    """
    others = torch.cat([targets, bank])
    taught = functional.softmax(scale * (targets @ others.T), dim=1)
    seen = functional.log_softmax(scale * (embeddings @ others.T), dim=1)
    return (taught * (taught.clamp(min=_SMALLEST_SHARE).log() - seen)).sum(dim=1).mean()
