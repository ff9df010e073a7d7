"""Losses of pairs, of triplets and of a teacher, against loops that say what the formulas say."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from facedex.training.distillation import cosine_loss, relational_loss, resemblance_loss
from facedex.training.metric_losses import contrastive_loss, triplet_loss

CLASSES = torch.tensor([0, 0, 1, 1, 2])


def vectors(seed: int = 1, rows: int = 5) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(rows, 6, dtype=torch.float64)


def distance(first: Tensor, second: Tensor) -> float:
    return float((functional.normalize(first, dim=0) - functional.normalize(second, dim=0)).norm())


def test_contrastive_loss_is_that_of_all_pairs() -> None:
    rows, total = vectors(), 0.0
    pairs = [(i, j) for i in range(5) for j in range(i)]
    for i, j in pairs:
        apart = distance(rows[i], rows[j])
        total += apart**2 / 2 if CLASSES[i] == CLASSES[j] else max(0.0, 1.3 - apart) ** 2 / 2
    torch.testing.assert_close(float(contrastive_loss(rows, CLASSES, margin=1.3)), total / len(pairs))


def test_triplet_loss_takes_the_hardest_of_each_anchor() -> None:
    rows, losses = vectors(), list[float]()
    for anchor in range(4):  # the fifth face is alone and has no positive
        others = [other for other in range(5) if other != anchor]
        positive = max(distance(rows[anchor], rows[i]) ** 2 for i in others if CLASSES[i] == CLASSES[anchor])
        negative = min(distance(rows[anchor], rows[i]) ** 2 for i in others if CLASSES[i] != CLASSES[anchor])
        losses.append(max(0.0, positive - negative + 0.2))
    torch.testing.assert_close(float(triplet_loss(rows, CLASSES)), sum(losses) / len(losses))


def test_without_positives_there_is_nothing_to_learn_from_triplets() -> None:
    rows = vectors().requires_grad_()
    loss = triplet_loss(rows, torch.arange(5))
    loss.backward()
    assert float(loss.detach()) == 0


def test_gradients_of_pairs_and_triplets_are_those_of_finite_differences() -> None:
    rows = vectors().requires_grad_()
    assert torch.autograd.gradcheck(partial(contrastive_loss, classes=CLASSES), rows)
    assert torch.autograd.gradcheck(partial(triplet_loss, classes=CLASSES, margin=1.0), rows)


def test_cosine_loss_is_the_mean_of_one_minus_cosine() -> None:
    student, teacher = functional.normalize(vectors(1)), functional.normalize(vectors(2))
    expected = sum(1 - float(a @ b) for a, b in zip(student, teacher, strict=True)) / 5
    torch.testing.assert_close(float(cosine_loss(student, teacher)), expected)


def test_relations_are_kept_by_any_rotation() -> None:
    teacher = functional.normalize(vectors(2))
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    assert float(relational_loss(teacher @ rotation, teacher)) < 1e-12
    assert float(relational_loss(functional.normalize(vectors(3)), teacher)) > 1e-3


def test_resemblance_loss_is_the_divergence_of_two_opinions() -> None:
    student, teacher, bank = (functional.normalize(vectors(seed)) for seed in (1, 2, 3))
    total = 0.0
    for seen, taught in zip(student, teacher, strict=True):
        others = [*teacher, *bank]
        wanted = [math.exp(8 * float(taught @ other)) for other in others]
        given = [math.exp(8 * float(seen @ other)) for other in others]
        total += sum(
            p / sum(wanted) * math.log(p / sum(wanted) / (q / sum(given))) for p, q in zip(wanted, given, strict=True)
        )
    torch.testing.assert_close(float(resemblance_loss(student, teacher, bank, scale=8)), total / 5)


def test_gradients_of_a_teachers_losses_are_those_of_finite_differences() -> None:
    teacher, bank = functional.normalize(vectors(2)), functional.normalize(vectors(3))
    rows = vectors().requires_grad_()
    assert torch.autograd.gradcheck(partial(cosine_loss, targets=teacher), rows)
    assert torch.autograd.gradcheck(partial(relational_loss, targets=teacher), rows)
    assert torch.autograd.gradcheck(partial(resemblance_loss, targets=teacher, bank=bank, scale=4), rows)
