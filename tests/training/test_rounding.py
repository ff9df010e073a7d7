"""Learning with the roundings of 8 bits: they are those of the file, gradients pass them, and the file gains by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss

from facedex.training.backbones.compact import CompactNet, CompactShape
from facedex.training.export import onnx_of, quantised, run_onnx
from facedex.training.rounding import LARGEST_WEIGHT, rounded, rounded_answers, rounded_weights

SIDE = 32


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def a_net(*, seed: int = 1, mirrored: int = 0) -> nn.Module:
    """As it is after some training: its normalisations have seen pictures."""
    torch.manual_seed(seed)
    net = CompactNet(16, side=SIDE, shape=CompactShape((8, 16, 32), (1, 1, 1), hidden=32, mirrored=mirrored))
    for step in range(20):
        net(seeded(32, 3, SIDE, SIDE, seed=100 + step))
    return net.eval()


def in_8_bits(net: nn.Module, pictures: Tensor) -> Tensor:
    graph = onnx_of(net.eval(), pictures[:2], outputs=["vector"], free={"input": {0: "batch"}, "vector": {0: "batch"}})
    return torch.from_numpy(run_onnx(quantised(graph, pictures.numpy()), pictures.numpy())[0])


def distance(left: Tensor, right: Tensor) -> float:
    return float(1 - cosine_similarity(left, right).mean())


def test_weights_come_to_steps_of_their_channel() -> None:
    weights = seeded(4, 3, 3, 3) * torch.tensor([1e-3, 1, 10, 7])[:, None, None, None]
    largest = weights.abs().flatten(1).amax(dim=1, keepdim=True)
    steps = rounded_weights(weights).flatten(1) / largest * LARGEST_WEIGHT
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert steps.abs().amax(dim=1).round().tolist() == [LARGEST_WEIGHT] * 4
    assert float((rounded_weights(weights) - weights).abs().flatten(1).amax(dim=1).div(largest[:, 0]).max()) <= 0.5 / 64


def test_a_channel_without_weights_stays_without() -> None:
    assert not rounded_weights(torch.zeros(1, 2, 3, 3)).any()


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 4.0), (1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_answers_come_to_256_steps_and_nought_is_one_of_them(low: float, high: float) -> None:
    answers = torch.linspace(low, high, 2001)
    near = rounded_answers(answers)
    step = (max(high, 0) - min(low, 0)) / 255
    assert (
        float((near - answers).abs().max()) <= step + 1e-6
    )  # half a step, and that the ends may move by as nought does
    assert len(near.unique()) <= 256
    assert float(rounded_answers(torch.tensor([low, 0.0, high]))[1]) == 0


@pytest.mark.parametrize("mirrored", [0, 4])
def test_the_roundings_are_those_of_the_file(mirrored: int) -> None:
    """A vector with them is nearer to the file's than the unrounded one is; each batch has steps of its own, so not the same."""
    net, pictures = a_net(mirrored=mirrored), seeded(64, 3, SIDE, SIDE, seed=7)
    with torch.no_grad():
        plain, near, file = net(pictures), rounded(net, pictures), in_8_bits(net, pictures)
    assert 0 < distance(near, file) < 0.8 * distance(plain, file)


def test_gradients_reach_every_weight_and_the_network_stays_as_it_was() -> None:
    net = a_net().train()
    before = {name: value.clone() for name, value in net.named_parameters()}
    rounded(net, seeded(8, 3, SIDE, SIDE)).square().sum().backward()
    assert all(
        each.grad is not None and bool(each.grad.any()) for name, each in net.named_parameters() if "weight" in name
    )
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_what_learns_with_roundings_loses_less_to_8_bits() -> None:
    """It learns to give with them what it gives without."""
    teacher, net, pictures = a_net(), a_net(), seeded(64, 3, SIDE, SIDE, seed=7)
    optimiser = torch.optim.SGD(net.parameters(), lr=3e-3, momentum=0.9)
    slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, total_iters=200)
    for step in range(200):
        seen = seeded(32, 3, SIDE, SIDE, seed=1000 + step)
        optimiser.zero_grad()
        mse_loss(rounded(net, seen), teacher(seen).detach()).backward()
        optimiser.step()
        slower.step()
    with torch.no_grad():
        wanted = teacher(pictures)
        assert distance(in_8_bits(net, pictures), wanted) < 0.85 * distance(in_8_bits(a_net(), pictures), wanted)


def test_a_picture_of_one_colour_is_no_trouble() -> None:
    assert np.isfinite(rounded(a_net(), torch.zeros(2, 3, SIDE, SIDE)).detach().numpy()).all()
