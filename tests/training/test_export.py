"""Networks in 8 bits, and weights that are stored smaller, against those that they came from."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from facedex.training.export import onnx_of, quantised, run_onnx, stored_smaller


class TwoLayers(nn.Module):
    """One layer of 288 weights, and one of 36 864."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(1, 32, 3, bias=False), nn.Conv2d(32, 128, 3, bias=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self.large(torch.relu(self.small(pictures)))
        return seen


def made(seed: int) -> tuple[bytes, torch.Tensor]:
    torch.manual_seed(seed)
    picture = torch.rand(1, 1, 12, 12)
    return onnx_of(TwoLayers(), picture, outputs=["seen"], free={"input": {0: "batch"}}), picture


def test_large_layers_are_stored_in_8_bits_and_small_ones_in_16() -> None:
    graph, _ = made(0)
    smaller = stored_smaller(graph)
    kinds = {numpy_helper.to_array(each).dtype for each in onnx.load_from_string(smaller).graph.initializer}
    assert kinds == {np.dtype(np.int8), np.dtype(np.float16), np.dtype(np.float32)}, "scales stay in 32 bits"
    assert len(smaller) < 0.3 * len(graph)


def test_the_network_computes_nearly_the_same() -> None:
    """A weight is off by half a step of 127 at most: by 0.4 % of the largest, and at random."""
    graph, picture = made(1)
    (exact,), (near,) = run_onnx(graph, picture.numpy()), run_onnx(stored_smaller(graph), picture.numpy())
    difference = np.abs(exact - near).max() / np.abs(exact).max()
    assert 0 < difference < 0.01


def test_a_channel_without_weights_stays_without() -> None:
    network = TwoLayers()
    with torch.no_grad():
        network.large.weight[5] = 0
    picture = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    graph = onnx_of(network, picture, outputs=["seen"], free={"input": {0: "batch"}})
    (seen,) = run_onnx(stored_smaller(graph), picture.numpy())
    assert np.isfinite(seen).all()
    assert not seen[0, 5].any()


def test_in_8_bits_a_layer_is_rounded_once_together_with_its_relu() -> None:
    graph, picture = made(3)
    smaller = quantised(graph, picture.numpy())
    operators = [node.op_type for node in onnx.load_from_string(smaller).graph.node]
    assert "Relu" not in operators
    assert operators.count("QuantizeLinear") == 3, "the input and the answers of two layers"
    (exact,), (near,) = run_onnx(graph, picture.numpy()), run_onnx(smaller, picture.numpy())
    assert 0 < np.abs(exact - near).max() / np.abs(exact).max() < 0.03
