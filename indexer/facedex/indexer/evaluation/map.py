"""The map of faces: t-SNE of their vectors, each point drawn as its face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.pictures import as_rgb, drawing_library, empty_figure

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from facedex.indexer.evaluation.acquisition import AcquiredFace

FEWEST_FACES: Final = 4
"""Below this t-SNE has no neighbourhoods to keep."""
_SIDE_INCHES: Final = 12.0
_MOST_NAMED_PEOPLE: Final = 60
_MOST_SPREAD: Final = 1000
"""Moving faces apart compares each with each."""
_MOST_TRIED: Final = 1000
_TRIALS: Final = 5
"""One run may leave a face in a wrong group, by rounding alone; up to so many faces, the best of some runs is quick."""


def map_of_faces(vectors: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float64]:
    """Places (n, 2), each coordinate from 0 to 1, of unit vectors (n, dimension): t-SNE (van der Maaten, Hinton, 2008).

    Neighbours stay neighbours, the nearest of unit vectors being the one of the highest cosine; distances between clusters
    mean nothing. The same vectors and seed give the same map.

    Raises:
        InvalidArgument: fewer than four faces.
        DrawingLibraryMissing: scikit-learn is not installed.

    """
    if len(vectors) < FEWEST_FACES:
        raise InvalidArgument("PEOPLE", f"gives {len(vectors)} faces; a map needs at least {FEWEST_FACES}")
    perplexity = min(30.0, max(2.0, len(vectors) / 8))
    trials = _TRIALS if len(vectors) <= _MOST_TRIED else 1
    maps = [
        _one_map(vectors, perplexity, init="random" if trial else "pca", seed=seed + trial) for trial in range(trials)
    ]
    _, places = min(maps, key=lambda each: each[0])
    lowest, highest = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - lowest) / np.maximum(highest - lowest, 1e-9), np.float64)


def _one_map(
    vectors: NDArray[np.float32], perplexity: float, *, init: str, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """How badly the neighbours are kept (Kullback-Leibler divergence), and the places (n, 2)."""
    model = drawing_library("sklearn.manifold").TSNE(perplexity=perplexity, init=init, random_state=seed)
    places = np.asarray(model.fit_transform(vectors), np.float64)
    return float(model.kl_divergence_), places


def spread_apart(
    places: NDArray[np.float64], *, distance: NDArray[np.float64], rounds: int = 60
) -> NDArray[np.float64]:
    """The places (n, 2), moved little until hardly two are closer than `distance` (2,) in both directions."""
    moved = places / distance
    for _ in range(rounds):
        gaps = moved[:, None] - moved[None, :]
        overlap = np.clip(1 - np.abs(gaps).max(axis=2), 0, None)
        np.fill_diagonal(overlap, 0)
        length = np.maximum(np.linalg.norm(gaps, axis=2), 1e-9)
        moved += 0.25 * (gaps / length[:, :, None] * overlap[:, :, None]).sum(axis=1)
    return np.asarray(moved * distance, np.float64)


def draw_map(faces: Sequence[AcquiredFace], places: NDArray[np.float64], output: Path) -> None:
    """Write the map as a picture, each face in a frame of its identity's colour, in the format of the file's ending.

    Raises:
        DrawingLibraryMissing: matplotlib is not installed.

    """
    side = _face_side(len(faces))
    shown = spread_apart(places, distance=side * np.array([1.05, 1.3])) if len(faces) <= _MOST_SPREAD else places
    figure = empty_figure(width_inches=_SIDE_INCHES, height_inches=_SIDE_INCHES)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    colours = identity_colours([face.photograph.identity_id for face in faces])
    for face, place in zip(faces, shown, strict=True):
        _draw_face(axes, face, place, side=side, colour=colours[face.photograph.identity_id])
    if len(colours) <= _MOST_NAMED_PEOPLE:
        _draw_names(axes, faces, shown, side=side, colours=colours)
    lowest, highest = shown.min(axis=0) - 1.5 * side, shown.max(axis=0) + 1.5 * side
    axes.set(xlim=(lowest[0], highest[0]), ylim=(lowest[1], highest[1]), aspect="auto")
    figure.savefig(output, dpi=150)


def identity_colours(identities: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour (red, green, blue) for each identity; the golden ratio keeps neighbours in the list apart."""
    to_rgb = drawing_library("matplotlib.colors").hsv_to_rgb
    golden = 0.618033988749895
    people = sorted(set(identities))
    return {name: tuple(to_rgb((place * golden % 1, 0.9, (0.85, 0.6)[place % 2]))) for place, name in enumerate(people)}


def _face_side(count: int) -> float:
    """The side of a face so that all of them fill about a quarter of the map."""
    return float(np.clip(0.5 / np.sqrt(count), 0.008, 0.09))


def _draw_face(axes: Any, face: AcquiredFace, place: NDArray[np.float64], *, side: float, colour: object) -> None:
    left, bottom = place - side / 2
    patches = drawing_library("matplotlib.patches")
    axes.imshow(as_rgb(face.crop), extent=(left, left + side, bottom, bottom + side), zorder=2)
    frame = patches.Rectangle((left, bottom), side, side, fill=False, edgecolor=colour, linewidth=40 * side, zorder=3)
    axes.add_patch(frame)


def _draw_names(
    axes: Any,
    faces: Sequence[AcquiredFace],
    places: NDArray[np.float64],
    *,
    side: float,
    colours: dict[str, tuple[float, float, float]],
) -> None:
    identities = np.array([face.photograph.identity_id for face in faces])
    outline = drawing_library("matplotlib.patheffects").withStroke(linewidth=3, foreground="white")
    named: list[NDArray[np.float64]] = []
    for name, colour in colours.items():
        named.append(_name_place(places[identities == name], named, side=side))
        left, top = named[-1] + (0, 0.52 * side)
        axes.text(left, top, name, color=colour, fontsize=10, weight="bold", ha="center", va="bottom", zorder=4).set(
            path_effects=[outline]
        )


def _name_place(own: NDArray[np.float64], named: Sequence[NDArray[np.float64]], *, side: float) -> NDArray[np.float64]:
    """The face (2,) to name an identity at: of those around its medoid, the topmost that is not close to another name."""
    crowd = own[np.abs(own - _medoid(own)).max(axis=1) <= 3 * side]
    topmost_first = crowd[np.argsort(-crowd[:, 1], kind="stable")]
    room = side * np.array([2.0, 0.3])
    free = [place for place in topmost_first if all((np.abs(place - other) > room).any() for other in named)]
    return np.asarray([*free, topmost_first[0]][0])


def _medoid(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place (2,) that is nearest to all others: unlike their mean, it is where one of the faces is."""
    distances = np.linalg.norm(places[:, None] - places[None, :], axis=2)
    return np.asarray(places[distances.sum(axis=1).argmin()])
