"""What the drawn pictures share. The server runs without the drawing libraries, so they are imported in functions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.errors import IndexerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DrawingLibraryMissing(IndexerError):
    """The libraries that draw are an extra, and not installed."""

    reason = "DRAWING_LIBRARY_MISSING"

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is not installed; install it with: pip install 'facedex[calibration]'")
        self.library = library


def drawing_library(module: str) -> Any:
    """A module of matplotlib or scikit-learn, which ship no types that the checkers could use."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise DrawingLibraryMissing(module.partition(".")[0]) from missing


def empty_figure(*, width_inches: float, height_inches: float) -> Any:
    """A figure without margins, drawn by the renderer that needs no screen."""
    figure = drawing_library("matplotlib.figure").Figure(figsize=(width_inches, height_inches), facecolor="white")
    drawing_library("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def as_rgb(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop (height, width, 3), BGR, in the order that drawing libraries take."""
    return np.ascontiguousarray(crop[:, :, ::-1])
