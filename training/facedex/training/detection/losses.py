"""How wrong a detector's cells are."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_LARGEST_LOGARITHM: Final = 6.0
_EASY_WEIGHT: Final = 0.75
_LANDMARK_BEND: Final = 0.02
"""Of the face's side: errors below count squared, those above in proportion."""


def score_loss(logits: Tensor, is_face: Tensor, is_ignored: Tensor, overlaps: Tensor) -> Tensor:
    """Scores (cells,) learn how well their box fits; cells without a face count the more, the surer they are of one.

    The varifocal loss of Zhang et al., CVPR 2021. overlaps (faces,) are IoUs of the cells with a face.
    """
    wanted = torch.zeros_like(logits)
    wanted[is_face] = overlaps
    surety = _EASY_WEIGHT * torch.sigmoid(logits).detach().square()
    weight = torch.where(is_face, torch.ones_like(logits), surety) * (is_face | ~is_ignored)
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (losses * weight).sum() / is_face.sum().clamp(min=1)


def overlaps_of(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (faces,) of boxes (faces, 4) as centre and logarithms of the sides.

    Rezatofighi et al., CVPR 2019.
    """
    size, wanted = boxes[:, 2:].clamp(max=_LARGEST_LOGARITHM).exp(), targets[:, 2:].exp()
    first, last = boxes[:, :2] - size / 2, boxes[:, :2] + size / 2
    wanted_first, wanted_last = targets[:, :2] - wanted / 2, targets[:, :2] + wanted / 2
    common = (torch.minimum(last, wanted_last) - torch.maximum(first, wanted_first)).clamp(min=0).prod(dim=1)
    union = (size.prod(dim=1) + wanted.prod(dim=1) - common).clamp(min=1e-6)
    around = (torch.maximum(last, wanted_last) - torch.minimum(first, wanted_first)).prod(dim=1).clamp(min=1e-6)
    overlap = common / union
    return overlap, overlap - (around - union) / around


def landmark_loss(landmarks: Tensor, targets: Tensor, boxes: Tensor) -> Tensor:
    """Mean over coordinates of the error as a part of the face's side, both landmarks (faces, 10) in strides."""
    sides = (boxes[:, 2:].sum(dim=1, keepdim=True) / 2).exp()
    return distance_loss((landmarks - targets) / sides)


def distance_loss(errors: Tensor) -> Tensor:
    """Mean over coordinates of errors, each as a part of the face's side."""
    return functional.smooth_l1_loss(errors, torch.zeros_like(errors), beta=_LANDMARK_BEND)
