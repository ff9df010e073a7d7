"""Eight people on a circle: what a margin does, small enough to be seen.

Faces are made: each person is a point in many dimensions, each photograph that point moved by chance. A small network learns
two-dimensional embeddings, once with plain softmax and once with ArcFace, of which the directions are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle as Ring
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from facedex.training.margins import Margin, MarginHead, MarginKind

_INPUTS: Final = 32
_NOISE: Final = 0.35


@dataclass(frozen=True, slots=True)
class ToySettings:
    """How many people and faces, and how long each network learns."""

    people: int = 8
    faces_each: int = 100
    steps: int = 1500
    batch: int = 128
    learning_rate: float = 3e-3
    margin: float = 0.4
    scale: float = 16.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Circle:
    """What one loss made of faces it did not learn from.

    directions (n, 2) are unit vectors, people (n,). within_degrees is the mean angle between a face and its person's mean
    direction; between_degrees the mean angle between the mean directions of neighbours on the circle, and
    closest_degrees the smallest.
    """

    kind: MarginKind
    directions: NDArray[np.float32]
    people: NDArray[np.int64]
    within_degrees: float
    between_degrees: float
    closest_degrees: float


def learn_circles(settings: ToySettings) -> tuple[Circle, Circle]:
    """Softmax and ArcFace on the same faces, from the same random weights."""
    chance = torch.Generator().manual_seed(settings.seed)
    centres = functional.normalize(torch.randn(settings.people, _INPUTS, generator=chance))
    learnt, unseen = (_faces(centres, settings.faces_each, chance) for _ in range(2))
    softmax = Margin(MarginKind.SOFTMAX, 0, 1)
    arcface = Margin(MarginKind.ARCFACE, settings.margin, settings.scale)
    return _circle(softmax, settings, learnt, unseen), _circle(arcface, settings, learnt, unseen)


def draw_circles(circles: tuple[Circle, Circle], picture: Path) -> None:
    """Both circles side by side, with their angles."""
    drawing = Figure(figsize=(9, 5.6), layout="constrained")
    for place, circle in zip(drawing.subplots(1, 2), circles, strict=True):
        place.scatter(circle.directions[:, 0], circle.directions[:, 1], c=circle.people, cmap="tab10", s=14, zorder=3)
        for person in np.unique(circle.people):
            x, y = _mean_direction(circle.directions[circle.people == person])
            place.plot([0, x], [0, y], color="0.6", linewidth=0.8)
        place.add_patch(Ring((0, 0), 1, fill=False, color="0.85"))
        place.set_title(
            f"{circle.kind}\nwithin a person {circle.within_degrees:.1f}°\n"
            f"between neighbours {circle.between_degrees:.1f}°, closest {circle.closest_degrees:.1f}°"
        )
        place.set_aspect("equal")
        place.set_axis_off()
        place.set_xlim(-1.1, 1.1)
        place.set_ylim(-1.1, 1.1)
    drawing.savefig(picture)


@dataclass(frozen=True, slots=True)
class _Faces:
    pictures: Tensor
    people: Tensor


def _faces(centres: Tensor, each: int, chance: Generator) -> _Faces:
    people = torch.arange(len(centres)).repeat_interleave(each)
    noise = torch.randn(len(people), centres.shape[1], generator=chance)
    return _Faces(centres[people] + noise * (_NOISE / np.sqrt(centres.shape[1]) * 2), people)


def _circle(margin: Margin, settings: ToySettings, learnt: _Faces, unseen: _Faces) -> Circle:
    network = _learn(margin, settings, learnt)
    with torch.inference_mode():
        directions = functional.normalize(network(unseen.pictures)).numpy()
    return measured(margin.kind, directions, unseen.people.numpy())


def _learn(margin: Margin, settings: ToySettings, faces: _Faces) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # layers draw their weights from torch's own generator
        network = nn.Sequential(nn.Linear(_INPUTS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        head = MarginHead(settings.people, 2, margin)
    chance = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=settings.learning_rate)
    for _ in range(settings.steps):
        rows = torch.randint(len(faces.people), (settings.batch,), generator=chance)
        optimiser.zero_grad()
        head(network(faces.pictures[rows]), faces.people[rows]).backward()
        optimiser.step()
    return network.eval()


def measured(kind: MarginKind, directions: NDArray[np.float32], people: NDArray[np.int64]) -> Circle:
    """The angles of unit vectors (n, 2) of people (n,)."""
    means = np.stack([_mean_direction(directions[people == person]) for person in np.unique(people)])
    places = np.searchsorted(np.unique(people), people)
    within = np.degrees(np.arccos(np.clip((directions * means[places]).sum(axis=1), -1, 1)))
    angles = np.sort(np.degrees(np.arctan2(means[:, 1], means[:, 0])))
    between = np.diff(angles, append=angles[0] + 360)
    return Circle(kind, directions, people, float(within.mean()), float(between.mean()), float(between.min()))


def _mean_direction(directions: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = directions.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)
