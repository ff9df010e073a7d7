"""What can go wrong while a model is trained.

TrainingError
├── DataUnusable         the caller's fault: the folder or file holds nothing to learn from
│   └── OfOtherData      a run's folder holds what was made of other photographs
├── SettingsInvalid      the caller's fault: settings that contradict each other or the data
├── CheckpointUnusable   data: a checkpoint of another run, of another network, or damaged
└── ExportDiffers        system: the exported network does not compute what the trained one does
"""

from __future__ import annotations

from pathlib import Path


class TrainingError(Exception):
    """Base of all errors of `facedex.training`."""


class DataUnusable(TrainingError):
    """Photographs, crops or labels that nothing can be learnt from."""


class OfOtherData(DataUnusable):
    """A run goes on with the faces that it began with, or not at all."""

    def __init__(self, folder: Path, *, was: str, wanted: Path | str) -> None:
        super().__init__(
            f"{folder} holds the faces of {was}, not of {wanted}: name another --run, or delete that folder"
        )
        self.folder = folder


class SettingsInvalid(TrainingError):
    """Settings that cannot be kept."""


class CheckpointUnusable(TrainingError):
    """Weights that do not belong where they are loaded."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class ExportDiffers(TrainingError):
    """An ONNX file whose outputs are not those of the network that it was made from."""

    def __init__(self, largest_difference: float, *, tolerance: float) -> None:
        super().__init__(
            f"the exported network differs by {largest_difference:.2g} where {tolerance:.2g} is allowed: "
            "the network holds an operation that ONNX computes otherwise"
        )
        self.largest_difference = largest_difference
        self.tolerance = tolerance
