"""The similarity grid: photographs on two edges, their cosines in the cells."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facedex.indexer.evaluation.pictures import as_rgb, drawing_library, empty_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from facedex.indexer.evaluation.acquisition import AcquiredFace

_LONGEST_SIDE_INCHES: Final = 14.0
_CELL_INCHES: Final = (0.46, 1.3)
"""The smallest cell in which a cosine can still be read at 150 dots an inch, and the largest that is not wasteful."""
_NEAR: Final = 0.3
"""Cosines this far below the threshold are white: neither match nor near-miss."""


@dataclass(frozen=True, slots=True)
class SimilarityGrid:
    """Cosines (rows, columns) of faces; `is_itself` (rows, columns) marks a photograph beside itself, which says nothing."""

    rows: tuple[AcquiredFace, ...]
    columns: tuple[AcquiredFace, ...]
    cosines: NDArray[np.float64]
    is_itself: NDArray[np.bool_]

    @property
    def is_mated(self) -> NDArray[np.bool_]:
        """(rows, columns): whether both photographs show the same identity."""
        rows, columns = _identities(self.rows), _identities(self.columns)
        return np.asarray(rows[:, None] == columns[None, :])


@dataclass(frozen=True, slots=True)
class IdentityMeans:
    """Mean cosine (rows, columns) of each identity's photographs with another's; NaN where there is no comparison."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cosines: NDArray[np.float64]


def similarity_grid(rows: Sequence[AcquiredFace], columns: Sequence[AcquiredFace]) -> SimilarityGrid:
    cosines = _vectors(rows) @ _vectors(columns).T
    paths = [[each.photograph.path for each in edge] for edge in (rows, columns)]
    is_itself = np.array([[row == column for column in paths[1]] for row in paths[0]])
    return SimilarityGrid(tuple(rows), tuple(columns), cosines, is_itself)


def identity_means(grid: SimilarityGrid) -> IdentityMeans:
    """What a person's photographs have in common with another's; no photograph is compared with itself."""
    rows, columns = _identities(grid.rows), _identities(grid.columns)
    people = np.unique(rows), np.unique(columns)
    counted = np.where(grid.is_itself, np.nan, grid.cosines)
    means = [[_mean(counted[np.ix_(rows == row, columns == column)]) for column in people[1]] for row in people[0]]
    return IdentityMeans(tuple(people[0].tolist()), tuple(people[1].tolist()), np.array(means))


def draw_grid(grid: SimilarityGrid, output: Path, *, threshold: float) -> None:
    """Write the grid as a picture, in the format that the file's ending names.

    Green is a match at the threshold, orange close to one, white far from one. Where the names say otherwise, the cell has
    a frame: red for a false match, blue for a miss.

    Raises:
        DrawingLibraryMissing: matplotlib is not installed.

    """
    cell = float(np.clip(_LONGEST_SIDE_INCHES / (1 + max(grid.cosines.shape)), *_CELL_INCHES))
    rows, columns = grid.cosines.shape
    label = _label_cells(grid, cell)
    width, height = columns + 1 + label, rows + 1 + label + 1
    figure = empty_figure(width_inches=width * cell, height_inches=height * cell)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(_colours(grid, threshold), extent=(0, columns, rows, 0), interpolation="nearest")
    _draw_edges(axes, grid, cell)
    _draw_cosines(axes, grid, threshold, cell)
    legend = textwrap.fill(_legend(threshold), width=int(width * cell / _character_inches(cell)) - 2)
    axes.text(0.2 - 1 - label, rows + 0.2, legend, fontsize=_font_points(cell), va="top")
    axes.set(xlim=(-1 - label, columns), ylim=(rows + 1, -1 - label), aspect="auto")
    figure.savefig(output, dpi=150)


def label_of(face: AcquiredFace) -> str:
    """A photograph's name for people: `jeff 3`, `woman_hat 0`, `musk_front`."""
    path = face.photograph.path
    return path.stem if path.stem.startswith(face.photograph.identity_id) else f"{path.parent.name} {path.stem}"


def _vectors(faces: Sequence[AcquiredFace]) -> NDArray[np.float64]:
    return np.stack([face.vector for face in faces]).astype(np.float64)


def _identities(faces: Sequence[AcquiredFace]) -> NDArray[np.str_]:
    return np.array([face.photograph.identity_id for face in faces])


def _mean(cosines: NDArray[np.float64]) -> float:
    present = cosines[~np.isnan(cosines)]
    return float(present.mean()) if present.size else float("nan")


def _colours(grid: SimilarityGrid, threshold: float) -> NDArray[np.float64]:
    """(rows, columns, 4): RGBA of the cells."""
    maps = drawing_library("matplotlib").colormaps
    above = (grid.cosines - threshold) / max(1 - threshold, 1e-6)
    below = np.clip(1 - (threshold - grid.cosines) / _NEAR, 0, 1)
    matched = maps["Greens"](0.25 + 0.45 * np.clip(above, 0, 1))
    near = maps["Oranges"](0.45 * below**2)
    cells = np.where((grid.cosines >= threshold)[:, :, None], matched, near)
    cells[grid.is_itself] = (0.85, 0.85, 0.85, 1)
    return np.asarray(cells, np.float64)


def _draw_edges(axes: Any, grid: SimilarityGrid, cell: float) -> None:
    points = _font_points(cell)
    for place, face in enumerate(grid.columns):
        axes.imshow(as_rgb(face.crop), extent=(place + 0.02, place + 0.98, -0.02, -0.98))
        axes.text(place + 0.5, -1.12, label_of(face), rotation=90, fontsize=points, ha="center", va="bottom")
    for place, face in enumerate(grid.rows):
        axes.imshow(as_rgb(face.crop), extent=(-0.98, -0.02, place + 0.98, place + 0.02))
        axes.text(-1.12, place + 0.5, label_of(face), fontsize=points, ha="right", va="center")


def _draw_cosines(axes: Any, grid: SimilarityGrid, threshold: float, cell: float) -> None:
    for row, column in np.ndindex(*grid.cosines.shape):
        if grid.is_itself[row, column]:
            continue
        cosine = grid.cosines[row, column]
        weight = "bold" if cosine >= threshold else "normal"
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{cosine:.2f}",
            fontsize=_font_points(cell),
            weight=weight,
            ha="center",
            va="center",
        )
    rectangle = drawing_library("matplotlib.patches").Rectangle
    errors = (
        (grid.is_mated < _is_match(grid, threshold), "red"),
        (grid.is_mated > _is_match(grid, threshold), "royalblue"),
    )
    for cells, colour in errors:
        for row, column in np.argwhere(cells & ~grid.is_itself):
            corner = (column + 0.05, row + 0.05)
            axes.add_patch(rectangle(corner, 0.9, 0.9, fill=False, edgecolor=colour, linewidth=2.2 * cell**0.5))


def _is_match(grid: SimilarityGrid, threshold: float) -> NDArray[np.bool_]:
    return np.asarray(grid.cosines >= threshold)


def _legend(threshold: float) -> str:
    return (
        f"green: cosine of {threshold:.3f} or more · orange: close to it · framed red: false match · framed blue: miss"
    )


def _font_points(cell: float) -> float:
    return 4.5 + 8.5 * cell


def _label_cells(grid: SimilarityGrid, cell: float) -> float:
    """Room for the longest label, in cells."""
    longest = max(len(label_of(face)) for face in (*grid.rows, *grid.columns))
    return 0.4 + longest * _character_inches(cell) / cell


def _character_inches(cell: float) -> float:
    """A character is about 0.6 of the font's size wide; a point is 1/72 inch."""
    return 0.6 * _font_points(cell) / 72
