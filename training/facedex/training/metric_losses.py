"""Losses of pairs and triplets, from before there were margins on class centres."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(embeddings: Tensor, classes: Tensor, *, margin: float = 1.0) -> Tensor:
    """Mean over all pairs of a batch: d²/2 of the same class, max(0, margin − d)²/2 of different ones.

    Hadsell, Chopra & LeCun, CVPR 2006, eq. 4, on unit vectors. embeddings (n, dimension), classes (n,); n is at least 2.
    """
    distances = _distances(embeddings)
    rows, columns = torch.triu_indices(len(classes), len(classes), offset=1, device=classes.device)
    apart = distances[rows, columns]
    same = classes[rows] == classes[columns]
    return torch.where(same, apart.square(), (margin - apart).clamp(min=0).square()).mean() / 2


def triplet_loss(embeddings: Tensor, classes: Tensor, *, margin: float = 0.2) -> Tensor:
    """Mean of max(0, d²(a, p) − d²(a, n) + margin) over anchors, each with its hardest positive and negative of the batch.

    The loss of Schroff, Kalenichenko & Philbin, CVPR 2015, eq. 3, on unit vectors, with the choice of triplets of Hermans,
    Beyer & Leibe, arXiv 1703.07737. Anchors without a positive or a negative do not count; 0 where there are no others.
    """
    squared = _distances(embeddings).square()
    same = classes[:, None] == classes[None, :]
    itself = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    positive = squared.masked_fill(~same | itself, -torch.inf).amax(dim=1)
    negative = squared.masked_fill(same, torch.inf).amin(dim=1)
    usable = positive.isfinite() & negative.isfinite()
    if not usable.any():
        return embeddings.sum() * 0
    return (positive[usable] - negative[usable] + margin).clamp(min=0).mean()


def _distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances (n, n) of the unit vectors; the small number keeps the gradient finite where two coincide."""
    units = functional.normalize(embeddings)
    squared = 2 - 2 * (units @ units.T)
    return squared.clamp(min=0).add(1e-12).sqrt()
