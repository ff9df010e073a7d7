"""The weights that a training begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.training.backbones.compact import CompactNet
from facedex.training.backbones.growing import grown
from facedex.training.errors import CheckpointUnusable
from facedex.training.loop import load_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def start_from(path: Path, student: nn.Module) -> None:
    """Begin with the weights of a state dict, or with the averaged ones of a run's checkpoint.

    A `CompactNet` takes those of a shallower one too.

    Raises:
        CheckpointUnusable: they are of another network.

    """
    state = load_state(path)
    if isinstance(state, dict) and "averaged" in state:
        averaged = state["averaged"]
        state = {name.removeprefix("module."): each for name, each in averaged.items() if name != "n_averaged"}
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointUnusable(path, "holds no weights")
    try:
        student.load_state_dict(grown(state, student) if isinstance(student, CompactNet) else state)
    except (RuntimeError, TypeError, ValueError) as problem:
        raise CheckpointUnusable(path, "holds the weights of another network") from problem
