"""Checkpoints of other projects, as networks of this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from facedex.training.backbones.backbone import BackboneName, make_backbone
from facedex.training.errors import CheckpointUnusable
from facedex.training.loop import load_state

_IRESNETS: Final = {
    (2, 2, 2, 2): BackboneName.IRESNET18,
    (3, 4, 6, 3): BackboneName.IRESNET34,
    (3, 4, 14, 3): BackboneName.IRESNET50,
    (3, 13, 30, 3): BackboneName.IRESNET100,
}
_WRAPPERS: Final = ("state_dict_backbone", "state_dict", "backbone")
"""Under what a training checkpoint keeps the network's own weights."""
_PARALLEL: Final = "module."
"""What torch's DataParallel puts before every name."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A network with a checkpoint's weights, and what it was recognised as."""

    name: BackboneName
    network: nn.Module


def import_checkpoint(path: Path) -> Imported:
    """A face.evoLVe IR-50 or an arcface_torch IResNet, recognised by the names of its weights.

    Raises:
        CheckpointUnusable: it is neither, or weights are missing or of another shape.

    """
    weights = _weights_in(path)
    name = recognised(weights)
    if name is None:
        raise CheckpointUnusable(path, "is neither face.evoLVe's IR-50 nor an IResNet of InsightFace's arcface_torch")
    network = make_backbone(name, dimension=_dimension(path, name, weights))
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as problem:
        raise CheckpointUnusable(path, f"looks like {name}, and is not: {_first_line(problem)}") from problem
    return Imported(name, network.eval())


def recognised(weights: Mapping[str, Tensor]) -> BackboneName | None:
    """Whose weights these are, by their names."""
    if "input_layer.0.weight" in weights and "body.23.res_layer.4.weight" in weights:
        has_more = any(name.startswith("body.24.") or ".fc1." in name for name in weights)
        return None if has_more else BackboneName.EVOLVE_IR50
    first, second, third, fourth = (_blocks(weights, layer) for layer in (1, 2, 3, 4))
    return _IRESNETS.get((first, second, third, fourth))


def _blocks(weights: Mapping[str, Tensor], layer: int) -> int:
    return sum(name.startswith(f"layer{layer}.") and name.endswith(".conv1.weight") for name in weights)


def _weights_in(path: Path) -> dict[str, Tensor]:
    state = load_state(path)
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise CheckpointUnusable(path, "holds no state dict: save the network's state_dict() alone")
    return {str(name).removeprefix(_PARALLEL): each for name, each in state.items()}


def _dimension(path: Path, name: BackboneName, weights: Mapping[str, Tensor]) -> int:
    last = "output_layer.3.weight" if name is BackboneName.EVOLVE_IR50 else "fc.weight"
    if last not in weights:
        raise CheckpointUnusable(path, f"looks like {name}, but {last} is missing")
    return len(weights[last])


def _first_line(problem: RuntimeError) -> str:
    return " ".join(str(problem).split())[:200]
