"""A network whose first layers look at the mirror image too: what they see there, and that a file of it needs no mirror."""

from __future__ import annotations

import onnx
import pytest
import torch
from tests.training.networks import SIDE, trained
from torch import Generator, Tensor

from facedex.training.backbones.compact import CompactNet, CompactShape, mirrored_through
from facedex.training.export import UnitVectors, embedder_graph, quantised

LAYERS = 5
CROPS = torch.rand(3, 3, SIDE, SIDE, generator=Generator().manual_seed(2))


def a_net(*, mirrored: int) -> CompactNet:
    return trained(CompactShape((4, 6, 8), hidden=8, inner=(4, 5, 7), mirrored=mirrored), seed=1)


@pytest.mark.parametrize("layers", range(1, 9))
def test_mirrored_kernels_see_what_the_kernels_see_of_the_mirror_image(layers: int) -> None:
    """On an odd number of places, strides leave out none at either side."""
    first = a_net(mirrored=0).features[:layers]
    crops = torch.rand(2, 3, 33, 33, generator=Generator().manual_seed(3))
    seen: Tensor = first(crops.flip(3)).flip(3)
    assert not torch.allclose(first(crops), seen, atol=1e-3)
    torch.testing.assert_close(mirrored_through(first, crops), seen)


def test_what_follows_sees_the_mean_of_both_views() -> None:
    net, plain = a_net(mirrored=LAYERS), a_net(mirrored=0)
    first, rest = plain.features[:LAYERS], plain.features[LAYERS:]
    mean = (first(CROPS) + mirrored_through(first, CROPS)) / 2
    torch.testing.assert_close(net(CROPS), plain.head(rest(mean)))
    assert not torch.allclose(net(CROPS), plain(CROPS), atol=1e-3)


def test_both_views_teach_the_kernels() -> None:
    net = a_net(mirrored=LAYERS)
    kernels = net.get_parameter("features.0.0.weight")
    first, rest = net.features[:LAYERS], net.features[LAYERS:]
    own, mirror = first(CROPS), mirrored_through(first, CROPS)

    def gradient(mean: Tensor) -> Tensor:
        return torch.autograd.grad(net.head(rest(mean)).square().sum(), kernels, retain_graph=True)[0]

    of_one, of_other = gradient((own + mirror.detach()) / 2), gradient((own.detach() + mirror) / 2)
    torch.testing.assert_close(torch.autograd.grad(net(CROPS).square().sum(), kernels)[0], of_one + of_other)
    assert of_one.any()
    assert of_other.any()


def test_a_file_in_8_bits_holds_mirrored_kernels_and_mirrors_nothing() -> None:
    file = quantised(embedder_graph(UnitVectors(a_net(mirrored=LAYERS)), side=SIDE), CROPS.numpy())
    operators = [node.op_type for node in onnx.load_from_string(file).graph.node]
    assert operators.count("Conv") == 2 * 8 + 5 + 2, "the first layers twice, those behind and the head's once"
    assert not {"Slice", "Gather", "Concat", "BatchNormalization"} & set(operators)
