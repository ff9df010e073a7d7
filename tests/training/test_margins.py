"""The margin losses against the formulas of their papers, and their gradients against calculus."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facedex.training.margins import Margin, MarginHead, MarginKind, arcface_logit, sphereface_logit

ANGLES = torch.linspace(0.05, math.pi - 0.05, 60, dtype=torch.float64)


def psi(angle: float, margin: float) -> float:
    """SphereFace's eq. 7, in the words of the paper."""
    turns = math.floor(angle * margin / math.pi)
    return float((-1) ** turns) * math.cos(margin * angle) - 2 * turns


def test_arcface_adds_the_margin_to_the_angle() -> None:
    inside = ANGLES[ANGLES.lt(math.pi - 0.5)]
    torch.testing.assert_close(arcface_logit(inside.cos(), 0.5), (inside + 0.5).cos())


def test_beyond_half_a_turn_arcface_goes_on_falling() -> None:
    logits = arcface_logit(ANGLES.cos(), 0.5)
    assert bool((logits.diff() < 0).all())


def test_cosface_takes_the_margin_off_the_cosine() -> None:
    margin = Margin(MarginKind.COSFACE, 0.35, 64)
    torch.testing.assert_close(margin.own_logit(ANGLES.cos()), ANGLES.cos() - 0.35)


@pytest.mark.parametrize("margin", [1.0, 1.7, 4.0])
def test_sphereface_multiplies_the_angle(margin: float) -> None:
    expected = torch.tensor([psi(angle, margin) for angle in ANGLES.tolist()], dtype=torch.float64)
    torch.testing.assert_close(sphereface_logit(ANGLES.cos(), margin), expected)


def gradient_of(logit: Tensor, angles: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logit.sum(), angles)
    return gradient


def test_gradients_over_the_angle_are_those_of_calculus() -> None:
    """d/dθ: −sin(θ + m) for ArcFace, −sin θ for CosFace, −m·(−1)^k·sin(mθ) for SphereFace."""
    angles = ANGLES[ANGLES.lt(math.pi - 0.5)].clone().requires_grad_()
    arcface = gradient_of(arcface_logit(angles.cos(), 0.5), angles)
    torch.testing.assert_close(arcface, -(angles + 0.5).sin())
    cosface = gradient_of(Margin(MarginKind.COSFACE, 0.35, 1).own_logit(angles.cos()), angles)
    torch.testing.assert_close(cosface, -angles.sin())
    sign = torch.tensor([(-1.0) ** math.floor(2 * each / math.pi) for each in angles.tolist()], dtype=torch.float64)
    sphereface = gradient_of(sphereface_logit(angles.cos(), 2.0), angles)
    torch.testing.assert_close(sphereface, -2 * sign * (2 * angles).sin())


@pytest.mark.parametrize("kind", list(MarginKind))
def test_heads_have_the_gradient_of_finite_differences(kind: MarginKind) -> None:
    torch.manual_seed(3)
    head = MarginHead(5, 4, Margin(kind, Margin.usual(kind).margin, 4.0)).double()
    classes = torch.tensor([0, 2, 4])
    embeddings = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def loss(vectors: Tensor, centres: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(head, {"centres": centres}, (vectors, classes))
        return value

    assert torch.autograd.gradcheck(loss, (embeddings, head.centres))


@pytest.mark.parametrize("kind", [MarginKind.ARCFACE, MarginKind.COSFACE, MarginKind.SPHEREFACE])
def test_only_the_own_class_has_a_margin(kind: MarginKind) -> None:
    torch.manual_seed(4)
    head = MarginHead(3, 6, Margin(kind, Margin.usual(kind).margin, 10.0))
    embedding = torch.randn(1, 6)
    logits = head.logits(embedding, torch.tensor([1]))[0]
    cosines = torch.cosine_similarity(embedding, head.centres) * 10
    torch.testing.assert_close(logits[[0, 2]], cosines[[0, 2]])
    assert logits[1] < cosines[1]


def test_the_length_of_an_embedding_says_nothing_but_to_plain_softmax() -> None:
    torch.manual_seed(5)
    embeddings, classes = torch.randn(2, 6), torch.tensor([0, 1])
    arcface = MarginHead(3, 6, Margin.usual(MarginKind.ARCFACE))
    softmax = MarginHead(3, 6, Margin.usual(MarginKind.SOFTMAX))
    torch.testing.assert_close(arcface(embeddings, classes), arcface(embeddings * 7, classes))
    torch.testing.assert_close(softmax.logits(embeddings * 7, classes), softmax.logits(embeddings, classes) * 7)
