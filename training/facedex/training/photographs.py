"""The photographs of a folder, read for training: what cannot be read is reported, never fatal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES
from facedex.indexer.vision.decode import ImageLimits, read_photograph
from facedex.indexer.vision.errors import ImageRefused
from facedex.training.progress import Observer


def photographs_in(folder: Path) -> list[Path]:
    """Directly in the folder, in order of their names."""
    return sorted(each for each in folder.iterdir() if _is_photograph(each))


def photographs_below(folder: Path) -> list[Path]:
    """At any depth, in order of their paths."""
    return sorted(each for each in folder.rglob("*") if _is_photograph(each))


def read_or_report(path: Path, observer: Observer) -> NDArray[np.uint8] | None:
    """Pixels (height, width, 3), BGR; None where it cannot be read, which the observer is told."""
    try:
        return read_photograph(path.read_bytes(), ImageLimits()).decode()
    except (OSError, ImageRefused) as problem:
        observer.report(f"{path} is left out: {problem}")
        return None


def _is_photograph(path: Path) -> bool:
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES
