"""Learning with the roundings of a file in 8 bits, so that the network finds weights that they harm least.

Weights are rounded to the steps of their channel, answers of layers to 256 steps between the least and the largest of the
batch; gradients pass as if nothing were rounded (Jacob et al., CVPR 2018, section 3). What is stored stays unrounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from facedex.training.backbones.layers import Mean

LARGEST_WEIGHT: Final = 64
"""In steps: 7 bits, as `export.quantised` writes them."""
_LARGEST_ANSWER: Final = 255
_SMALLEST_STEP: Final = 1e-30
"""Where all is nought; its inverse is a number too."""
_ACTIVATIONS: Final = (nn.ReLU, nn.PReLU)
_NORMALISATIONS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


def rounded(network: nn.Module, pictures: Tensor) -> Tensor:
    """What the network makes of pictures (n, channels, height, width), each layer rounded as in 8 bits."""
    weights = {name: rounded_weights(each) for name, each in network.named_parameters() if each.ndim > 1}
    with ExitStack() as hooks:
        for layer in _answering(network):
            hooks.enter_context(layer.register_forward_hook(_round))
        vectors: Tensor = functional_call(network, weights, (rounded_answers(pictures),))
    return vectors


def _round(_layer: nn.Module, _inputs: object, answers: Tensor) -> Tensor:
    return rounded_answers(answers)


def rounded_weights(weights: Tensor) -> Tensor:
    """The largest weight of each channel is the largest step, and nought is a step."""
    largest = weights.detach().abs().flatten(1).amax(dim=1)
    steps = (largest / LARGEST_WEIGHT).clamp_min(_SMALLEST_STEP)
    noughts = torch.zeros(len(weights), dtype=torch.int32, device=weights.device)
    return torch.fake_quantize_per_channel_affine(weights, steps, noughts, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)


def rounded_answers(answers: Tensor) -> Tensor:
    """256 steps between the least and the largest of them, and nought is a step."""
    answers = answers.float()
    low, high = answers.detach().amin().clamp(max=0), answers.detach().amax().clamp(min=0)
    step = ((high - low) / _LARGEST_ANSWER).clamp_min(_SMALLEST_STEP)
    nought = torch.round(-low / step).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(answers, step, nought, 0, _LARGEST_ANSWER)


def _answering(network: nn.Module) -> Iterator[nn.Module]:
    """Layers whose answers a file in 8 bits rounds: blocks, activations, and normalisations without one behind them."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for layer, following in pairwise([*module, None]):
                if isinstance(layer, _NORMALISATIONS) and not isinstance(following, _ACTIVATIONS):
                    yield layer
        elif isinstance(module, (*_ACTIVATIONS, Mean, nn.Linear)) or (
            module is not network and list(module.children())
        ):
            yield module
