"""Names and shapes of weights as two projects publish them, written down from their sources and not from ours.

face.evoLVe, backbone/model_irse.py, IR_50([112, 112]); InsightFace, recognition/arcface_torch/backbones/iresnet.py.
"""

from __future__ import annotations

from collections.abc import Iterator

Layout = dict[str, tuple[int, ...]]
CHANNELS = (64, 128, 256, 512)


def evolve_ir50() -> Layout:
    return dict(_evolve())


def iresnet(*blocks: int) -> Layout:
    return dict(_iresnet(blocks))


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def _evolve() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "input_layer.0.weight", (64, 3, 3, 3)
    yield from _norm("input_layer.1", 64)
    yield "input_layer.2.weight", (64,)
    number, before = 0, 64
    for channels, count in zip(CHANNELS, (3, 4, 14, 3), strict=True):
        for _ in range(count):
            name = f"body.{number}"
            if before != channels:
                yield f"{name}.shortcut_layer.0.weight", (channels, before, 1, 1)
                yield from _norm(f"{name}.shortcut_layer.1", channels)
            yield from _norm(f"{name}.res_layer.0", before)
            yield f"{name}.res_layer.1.weight", (channels, before, 3, 3)
            yield f"{name}.res_layer.2.weight", (channels,)
            yield f"{name}.res_layer.3.weight", (channels, channels, 3, 3)
            yield from _norm(f"{name}.res_layer.4", channels)
            number, before = number + 1, channels
    yield from _norm("output_layer.0", 512)
    yield "output_layer.3.weight", (512, 25088)
    yield "output_layer.3.bias", (512,)
    yield from _norm("output_layer.4", 512)


def _iresnet(blocks: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1.weight", (64, 3, 3, 3)
    yield from _norm("bn1", 64)
    yield "prelu.weight", (64,)
    before = 64
    for layer, (channels, count) in enumerate(zip(CHANNELS, blocks, strict=True), start=1):
        for number in range(count):
            name = f"layer{layer}.{number}"
            yield from _norm(f"{name}.bn1", before)
            yield f"{name}.conv1.weight", (channels, before, 3, 3)
            yield from _norm(f"{name}.bn2", channels)
            yield f"{name}.prelu.weight", (channels,)
            yield f"{name}.conv2.weight", (channels, channels, 3, 3)
            yield from _norm(f"{name}.bn3", channels)
            if number == 0:
                yield f"{name}.downsample.0.weight", (channels, before, 1, 1)
                yield from _norm(f"{name}.downsample.1", channels)
            before = channels
    yield from _norm("bn2", 512)
    yield "fc.weight", (512, 25088)
    yield "fc.bias", (512,)
    yield from _norm("features", 512)
