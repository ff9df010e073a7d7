"""The operations of ONNX that face networks are made of, in torch.

A value is a tensor on the device, or, where it is a shape, an index or a number, an array of NumPy: what sizes are computed
from never goes to the device, so that no run waits for it. Numbers in 8 bits are kept as whole floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facedex.indexer.vision.accelerated.graph import Array, Node

Value = Tensor | Array
Operator = Callable[[Node, Sequence[Any]], Any]

ON_HOST: Final[Mapping[str, int]] = {
    "Clip": 1,
    "Expand": 1,
    "Gather": 1,
    "ReduceL2": 1,
    "ReduceMean": 1,
    "Reshape": 1,
    "Resize": 1,
    "Slice": 1,
    "Split": 1,
    "Squeeze": 1,
    "Unsqueeze": 1,
}
"""From which input on an operator takes numbers that stay outside of the device."""
IN_SINGLE_PRECISION: Final = frozenset(
    {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearAdd", "QuantizeLinear"}
)
"""Sums of products of 8-bit numbers do not fit into 16 bits."""


def _up_to_three(inputs: Sequence[Any]) -> tuple[Any, Any, Any]:
    """The inputs, None for those that are left out at the end."""
    first, second, third = (*inputs, None, None)[:3]
    return first, second, third


def _convolved(node: Node, inputs: Sequence[Any]) -> Any:
    signal, weights, bias = _up_to_three(inputs)
    signal, padding = _padded(node, signal, weights.shape[2:])
    return functional.conv2d(
        signal,
        weights,
        bias,
        stride=tuple(node.attributes.get("strides", (1, 1))),
        padding=padding,
        dilation=tuple(node.attributes.get("dilations", (1, 1))),
        groups=node.attributes.get("group", 1),
    )


def _padded(
    node: Node, signal: Tensor, kernel: Sequence[int], *, filler: float = 0.0
) -> tuple[Tensor, tuple[int, int]]:
    """The signal and what torch shall pad it with; torch itself pads both ends alike only."""
    if node.attributes.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise NotImplementedError(f"auto_pad of {node.operator}")
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right) and 2 * top <= kernel[0] and 2 * left <= kernel[1]:
        return signal, (top, left)
    return functional.pad(signal, (left, right, top, bottom), value=filler), (0, 0)


def _convolved_integers(node: Node, inputs: Sequence[Any]) -> Any:
    signal, weights, *zeros = inputs
    return _convolved(node, (_centred(signal, zeros[:1]), _centred(weights, zeros[1:])))


def _multiplied_integers(_: Node, inputs: Sequence[Any]) -> Any:
    left, right, *zeros = inputs
    return _centred(left, zeros[:1]) @ _centred(right, zeros[1:])


def _centred(values: Tensor, zeros: Sequence[Any]) -> Tensor:
    zero = zeros[0] if zeros else None
    return values.float() if zero is None else values.float() - zero.float()


def _fully_connected(node: Node, inputs: Sequence[Any]) -> Any:
    left, right, bias = _up_to_three(inputs)
    left = left.T if node.attributes.get("transA", 0) else left
    right = right.T if node.attributes.get("transB", 0) else right
    product = (left @ right) * node.attributes.get("alpha", 1.0)
    return product if bias is None else product + bias * node.attributes.get("beta", 1.0)


def _normalised(node: Node, inputs: Sequence[Any]) -> Any:
    signal, *parameters = inputs
    # In the precision of the signal, so that a network in half precision stays in it.
    return functional.batch_norm(
        signal,
        *(parameters[2].to(signal.dtype), parameters[3].to(signal.dtype)),
        *(parameters[0].to(signal.dtype), parameters[1].to(signal.dtype)),
        eps=node.attributes.get("epsilon", 1e-5),
    )


def _sloped(_: Node, inputs: Sequence[Any]) -> Any:
    signal, slopes = inputs
    if slopes.numel() in {1, signal.shape[1]} and slopes.ndim != 1:
        return functional.prelu(signal, slopes.reshape(-1))
    return signal.clamp(min=0) + slopes * signal.clamp(max=0)


def _pooled(node: Node, inputs: Sequence[Any], *, maximum: bool) -> Tensor:  # two names of the table
    kernel = tuple(node.attributes["kernel_shape"])
    strides = tuple(node.attributes.get("strides", (1, 1)))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    signal, padding = _padded(node, inputs[0], kernel, filler=-torch.inf if maximum else 0.0)
    if maximum:
        return functional.max_pool2d(signal, kernel, strides, padding, ceil_mode=ceil)
    counts = bool(node.attributes.get("count_include_pad", 0))
    return functional.avg_pool2d(signal, kernel, strides, padding, ceil_mode=ceil, count_include_pad=counts)


def _resized(node: Node, inputs: Sequence[Any]) -> Any:
    """Nearest neighbours at whole multiples, which is all that detectors use."""
    signal, *numbers = inputs
    factors = [float(each) for each in numbers[1]] if len(numbers) > 1 and numbers[1] is not None else []
    # Of whole multiples, these ways of placing the samples are the same.
    if node.attributes.get("mode", "nearest") != "nearest" or len(factors) != 4 or factors[:2] != [1.0, 1.0]:
        raise NotImplementedError("Resize other than nearest by constant factors")
    if not all(each.is_integer() for each in factors):
        raise NotImplementedError("Resize by a factor that is no whole number")
    return functional.interpolate(signal, scale_factor=factors[2:], mode="nearest")


def _reshaped(node: Node, inputs: Sequence[Any]) -> Any:
    value, wanted = inputs
    copies = not node.attributes.get("allowzero", 0)
    sizes = [value.shape[place] if size == 0 and copies else size for place, size in enumerate(wanted.tolist())]
    return value.reshape(sizes)


def _flattened(node: Node, inputs: Sequence[Any]) -> Any:
    (value,) = inputs
    axis = node.attributes.get("axis", 1) % (value.ndim + 1)
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _gathered(node: Node, inputs: Sequence[Any]) -> Any:
    value, places = inputs
    axis = node.attributes.get("axis", 0)
    if isinstance(value, Tensor):
        return value.index_select(axis, torch.as_tensor(places.reshape(-1), device=value.device))
    return np.asarray(np.take(value, places, axis=axis))


def _axes(node: Node, numbers: Sequence[Any]) -> list[int]:
    """From the attribute, as in older files, or from an input."""
    given = node.attributes.get("axes") if "axes" in node.attributes else None
    return list(given) if given is not None else numbers[0].tolist() if numbers and numbers[0] is not None else []


def _unsqueezed(node: Node, inputs: Sequence[Any]) -> Any:
    value, *numbers = inputs
    for axis in sorted(_axes(node, numbers)):
        value = value.unsqueeze(axis) if isinstance(value, Tensor) else np.expand_dims(value, axis)
    return value


def _squeezed(node: Node, inputs: Sequence[Any]) -> Any:
    value, *numbers = inputs
    axes = tuple(_axes(node, numbers)) or tuple(place for place, size in enumerate(value.shape) if size == 1)
    return value.squeeze(axes) if isinstance(value, Tensor) else np.squeeze(value, axes)


def _joined(node: Node, inputs: Sequence[Any]) -> Any:
    axis = node.attributes["axis"]
    if isinstance(inputs[0], Tensor):
        return torch.cat(list(inputs), axis)
    return np.concatenate(inputs, axis)


def _cut(_: Node, inputs: Sequence[Any]) -> Any:
    value, starts, ends, *rest = inputs
    axes = rest[0].tolist() if rest and rest[0] is not None else range(len(starts))
    steps = rest[1].tolist() if len(rest) > 1 and rest[1] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        value = _cut_along(value, axis, slice(start, end, step))
    return value


def _cut_along(value: Value, axis: int, part: slice) -> Value:
    if isinstance(value, Tensor) and part.step == -1:  # torch has no negative steps
        places = list(range(value.shape[axis]))[part]
        return value.flip(axis) if len(places) == value.shape[axis] else value.flip(axis).narrow(axis, 0, len(places))
    return value[(slice(None),) * (axis % value.ndim) + (part,)]


def _split(node: Node, inputs: Sequence[Any]) -> Any:
    value, *numbers = inputs
    axis = node.attributes.get("axis", 0)
    sizes = numbers[0].tolist() if numbers and numbers[0] is not None else node.attributes.get("split")
    return value.split(list(sizes), axis) if sizes else value.chunk(len(node.outputs), axis)


def _clipped(node: Node, inputs: Sequence[Any]) -> Any:
    value, low, high = _up_to_three(inputs)
    low = node.attributes.get("min") if low is None else float(low)
    high = node.attributes.get("max") if high is None else float(high)
    return value if low is None and high is None else value.clamp(low, high)


def _cast(node: Node, inputs: Sequence[Any]) -> Any:
    (value,) = inputs
    if isinstance(value, Tensor):
        return value  # numbers are floating-point numbers already
    return value.astype({1: np.float32, 6: np.int32, 7: np.int64}[node.attributes["to"]])


def _length(node: Node, inputs: Sequence[Any]) -> Any:
    value, *numbers = inputs
    axes = _axes(node, numbers)
    # A sum of squares in half precision could overflow.
    return value.float().norm(dim=axes or None, keepdim=bool(node.attributes.get("keepdims", 1))).to(value.dtype)


def _mean(node: Node, inputs: Sequence[Any]) -> Any:
    value, *numbers = inputs
    axes = _axes(node, numbers) or list(range(value.ndim))
    return value.mean(dim=axes, keepdim=bool(node.attributes.get("keepdims", 1)))


def _quantised(node: Node, inputs: Sequence[Any]) -> Any:
    value, scale, zero = _up_to_three(inputs)
    lowest, highest = _range_of(zero)
    scale, zero = _along(node, value, scale), 0 if zero is None else _along(node, value, zero)
    return (torch.round(value / scale) + zero).clamp(lowest, highest)


def _added_in_steps(_: Node, inputs: Sequence[Any]) -> Any:
    """Two numbers in 8 bits, as whole steps of their sum, with the roundings of onnxruntime on processors with AVX2."""
    left, left_scale, left_zero, right, right_scale, right_zero, scale, zero = inputs
    lowest, highest = _range_of(zero)
    of_left, of_right = left_scale / scale, right_scale / scale
    shift = zero - _multiplied_and_added(left_zero, of_left, of_right * right_zero)
    total = _multiplied_and_added(left, of_left, _multiplied_and_added(right, of_right, shift))
    return torch.round(total).clamp(lowest, highest)


def _multiplied_and_added(values: Tensor, factor: Tensor, others: Tensor) -> Tensor:
    """Rounded once: of numbers in 8 bits and a factor of 24, product and sum fit into double precision."""
    return (values.double() * factor.double() + others.double()).to(factor.dtype)


def _range_of(zero: Tensor | None) -> tuple[int, int]:
    """Of numbers in 8 bits of the same type."""
    return (-128, 127) if zero is not None and zero.dtype == torch.int8 else (0, 255)


def _dequantised(node: Node, inputs: Sequence[Any]) -> Any:
    value, scale, zero = _up_to_three(inputs)
    value = value.to(scale.dtype)
    return (value if zero is None else value - _along(node, value, zero)) * _along(node, value, scale)


def _along(node: Node, value: Tensor, parameter: Tensor) -> Tensor:
    """A parameter of each channel, shaped so that it meets its axis."""
    if parameter.numel() == 1:
        return parameter.reshape(()).to(value.dtype)
    axis = node.attributes.get("axis", 1) % value.ndim
    return parameter.reshape(-1, *[1] * (value.ndim - axis - 1)).to(value.dtype)


def _dynamically_quantised(_: Node, inputs: Sequence[Any]) -> Any:
    """Each picture by its own range: alone or among others, it gives the same."""
    (value,) = inputs
    rest = tuple(range(1, value.ndim))
    low, high = value.amin(rest, keepdim=True).clamp(max=0), value.amax(rest, keepdim=True).clamp(min=0)
    scale = torch.where(high > low, (high - low) / 255, 1.0)
    zero = torch.round(-low / scale).clamp(0, 255)
    return (torch.round(value / scale) + zero).clamp(0, 255), scale, zero


def _shape(_: Node, inputs: Sequence[Any]) -> Any:
    return np.array(inputs[0].shape, np.int64)


def _largest(_: Node, inputs: Sequence[Any]) -> Any:
    largest = inputs[0]
    for each in inputs[1:]:
        largest = torch.maximum(largest, each)
    return largest


def _smallest(_: Node, inputs: Sequence[Any]) -> Any:
    smallest = inputs[0]
    for each in inputs[1:]:
        smallest = torch.minimum(smallest, each)
    return smallest


def _max_pooled(node: Node, inputs: Sequence[Any]) -> Any:
    return _pooled(node, inputs, maximum=True)


def _average_pooled(node: Node, inputs: Sequence[Any]) -> Any:
    return _pooled(node, inputs, maximum=False)


def _expanded(_: Node, inputs: Sequence[Any]) -> Any:
    value, sizes = inputs
    return value.expand(torch.broadcast_shapes(value.shape, tuple(sizes.tolist())))


OPERATORS: Final[Mapping[str, Operator]] = {
    "Add": lambda _, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pooled,
    "BatchNormalization": _normalised,
    "Cast": _cast,
    "Clip": _clipped,
    "Concat": _joined,
    "Conv": _convolved,
    "ConvInteger": _convolved_integers,
    "DequantizeLinear": _dequantised,
    "Div": lambda _, inputs: inputs[0] / inputs[1],
    "Dropout": lambda _, inputs: inputs[0],
    "DynamicQuantizeLinear": _dynamically_quantised,
    "Expand": _expanded,
    "Flatten": _flattened,
    "Gather": _gathered,
    "Gemm": _fully_connected,
    "GlobalAveragePool": lambda _, inputs: inputs[0].mean((2, 3), keepdim=True),
    "Identity": lambda _, inputs: inputs[0],
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(inputs[0], node.attributes.get("alpha", 0.01)),
    "MatMul": lambda _, inputs: inputs[0] @ inputs[1],
    "MatMulInteger": _multiplied_integers,
    "Max": _largest,
    "MaxPool": _max_pooled,
    "Min": _smallest,
    "Mul": lambda _, inputs: inputs[0] * inputs[1],
    "Neg": lambda _, inputs: -inputs[0],
    "PRelu": _sloped,
    "QLinearAdd": _added_in_steps,
    "QuantizeLinear": _quantised,
    "ReduceL2": _length,
    "ReduceMean": _mean,
    "Relu": lambda _, inputs: inputs[0].relu(),
    "Reshape": _reshaped,
    "Resize": _resized,
    "Shape": _shape,
    "Sigmoid": lambda _, inputs: inputs[0].sigmoid(),
    "Slice": _cut,
    "Split": _split,
    "Sqrt": lambda _, inputs: inputs[0].sqrt(),
    "Squeeze": _squeezed,
    "Sub": lambda _, inputs: inputs[0] - inputs[1],
    "Transpose": lambda node, inputs: inputs[0].permute(tuple(node.attributes["perm"])),
    "Unsqueeze": _unsqueezed,
}
