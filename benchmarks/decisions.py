"""Which templates to keep of a person, and what to decide by: FNIR at equal FPIR, on a folder of people.

    python -m benchmarks.decisions PEOPLE --data DATA --detector NAME --embedder NAME --json decisions.json

People with three and more photographs are enrolled with two to four of them for the first table, a part of those with two
and more with one for the second; everybody else is a stranger. Splits are seeded, people are drawn with replacement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.open_set import (
    Faces,
    Floats,
    Fnir,
    Outcomes,
    Split,
    Way,
    compare,
    outcomes_of,
    split_by_people,
    split_by_templates,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from facedex.indexer.evaluation.acquisition import AcquiredFace, acquire
from facedex.indexer.jobs.folder import photographs_of
from facedex.indexer.vision.face import Quality
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import available_cores

FUSION_TARGETS = (0.01,)
DECISION_TARGETS = (0.003, 0.01, 0.03)
AVERAGE_SHARES = (0.25, 0.5, 0.75)
COHORT = 50
ENROLLED_SHARE = 0.6
MISLABELLED_SHARE = 0.05


def main(
    people: Annotated[Path, typer.Argument(help="A folder with a folder of photographs for each person.")],
    *,
    data: Annotated[Path, typer.Option(help="Data folder with added models.")] = Path("data"),
    detector: Annotated[str, typer.Option(help="Finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[str, typer.Option(help="Makes vectors.")] = BUILTIN_EMBEDDER,
    splits: Annotated[int, typer.Option(help="Number of seeded splits.")] = 20,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Compares ways of fusing templates and of deciding."""
    machine = describe_machine()
    faces = embedded(people, models=ModelFolder(data / "models"), detector=detector, embedder=embedder)
    tables = {
        "templates of one person": compare_fusions(faces, splits=splits),
        f"the same, {MISLABELLED_SHARE:.0%} mislabelled": compare_mislabelled_fusions(faces, splits=splits),
        "what decides": compare_decisions(faces, splits=splits),
    }
    for title, rows in tables.items():
        print_table(f"{embedder}: {title}", rows)
    if json_path is not None:
        figures = {title: [asdict(row) for row in rows] for title, rows in tables.items()}
        document = {"machine": machine, "detector": detector, "embedder": embedder, "splits": splits, "tables": figures}
        json_path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def embedded(people: Path, *, models: ModelFolder, detector: str, embedder: str) -> Faces:
    """The largest face of each photograph that has one."""
    cv2.setNumThreads(1)
    pipeline = FacePipeline(detector=models.load_detector(detector), embedder=models.load_embedder(embedder))
    acquired = acquire(pipeline, photographs_of(people), workers=available_cores())
    found = [
        (each.vector, each.photograph.identity_id, usability(each.quality))
        for each in acquired
        if isinstance(each, AcquiredFace)
    ]
    vectors, names, weights = zip(*found, strict=True)
    _, identities = np.unique(names, return_inverse=True)
    return Faces(np.stack(vectors), identities.astype(np.int64), np.array(weights))


def usability(quality: Quality) -> float:
    """How much a face counts in a weighted mean: large, sharp and frontal ones count 1."""
    turned = np.cos(np.radians(quality.yaw_degrees)) * np.cos(np.radians(quality.pitch_degrees))
    seen = min(1.0, quality.size_px / 80) * min(1.0, quality.sharpness / 200)
    return float(max(quality.detector_score * seen * turned, 0.01))


def compare_fusions(faces: Faces, *, splits: int) -> list[Fnir]:
    return _compare_fusions(fusions(faces), faces, splits=splits)


def compare_mislabelled_fusions(faces: Faces, *, splits: int) -> list[Fnir]:
    """The same where a share of the templates was enrolled under somebody else's name."""
    return _compare_fusions({name: mislabelled(way) for name, way in fusions(faces).items()}, faces, splits=splits)


def _compare_fusions(ways: Mapping[str, Way], faces: Faces, *, splits: int) -> list[Fnir]:
    drawn = [split_by_templates(faces, fewest=2, most=4, seed=seed) for seed in range(splits)]
    return compare(ways, faces, drawn, target_fpirs=FUSION_TARGETS)


def fusions(faces: Faces) -> dict[str, Way]:
    return {
        "maximum over templates": maximum,
        "mean template": partial(mean_template, weights=np.ones_like(faces.weights)),
        "quality-weighted mean": partial(mean_template, weights=faces.weights),
        "maximum of templates and mean": maximum_and_mean,
        "half maximum, half mean": half_maximum_half_mean,
        **{f"{1 - share:.0%} maximum, {share:.0%} average cosine": _with_average(share) for share in AVERAGE_SHARES},
    }


def _with_average(share: float) -> Way:
    return partial(maximum_and_average, average_share=share)


def mislabelled(way: Way) -> Way:
    """The way, over templates of which some have changed places with each other."""

    def over_swapped(faces: Faces, split: Split) -> Outcomes:
        rng = np.random.default_rng(len(split.templates))
        swapped = rng.choice(split.templates, round(MISLABELLED_SHARE * len(split.templates)), replace=False)
        vectors = faces.vectors.copy()
        vectors[swapped] = faces.vectors[np.roll(swapped, 1)]
        return way(replace(faces, vectors=vectors), split)

    return over_swapped


def compare_decisions(faces: Faces, *, splits: int) -> list[Fnir]:
    ways: dict[str, Way] = {
        "cosine": decided_by(lambda cosines, _: cosines),
        "margin to the runner-up": decided_by(lambda cosines, _: margin(cosines)),
        "cosine + half the margin": decided_by(lambda cosines, _: cosines + margin(cosines) / 2),
        f"less half the mean of the next {COHORT}": decided_by(lambda cosines, _: cosines - mean_next(cosines) / 2),
        f"less the mean of the next {COHORT}": decided_by(lambda cosines, _: cosines - mean_next(cosines)),
        "less half of that of probe and of template": decided_by(less_both_means),
        f"z-norm over the next {COHORT}": decided_by(lambda cosines, _: z_norm(cosines)),
        f"s-norm over the next {COHORT}": decided_by(s_norm),
    }
    drawn = [split_by_people(faces, enrolled_share=ENROLLED_SHARE, seed=seed) for seed in range(splits)]
    return compare(ways, faces, drawn, target_fpirs=DECISION_TARGETS)


def maximum(faces: Faces, split: Split) -> Outcomes:
    people, cosines = _best_cosines(faces, split)
    return outcomes_of(cosines, people, faces, split)


def mean_template(faces: Faces, split: Split, *, weights: Floats) -> Outcomes:
    people, cosines = _mean_cosines(faces, split, weights)
    return outcomes_of(cosines, people, faces, split)


def maximum_and_mean(faces: Faces, split: Split) -> Outcomes:
    people, best = _best_cosines(faces, split)
    _, mean = _mean_cosines(faces, split, np.ones_like(faces.weights))
    return outcomes_of(np.maximum(best, mean), people, faces, split)


def half_maximum_half_mean(faces: Faces, split: Split) -> Outcomes:
    people, best = _best_cosines(faces, split)
    _, mean = _mean_cosines(faces, split, np.ones_like(faces.weights))
    return outcomes_of((best + mean) / 2, people, faces, split)


def maximum_and_average(faces: Faces, split: Split, *, average_share: float) -> Outcomes:
    """The average of cosines, unlike the cosine to the mean, never exceeds the maximum; nor does any mixture of the two."""
    people, best = _best_cosines(faces, split)
    return outcomes_of(best + average_share * (_average_cosines(faces, split) - best), people, faces, split)


def decided_by(score: Callable[[Floats, Floats], Floats]) -> Way:
    """A way that takes cosines (probes, people), and those between the templates (people, people), to other scores."""

    def way(faces: Faces, split: Split) -> Outcomes:
        templates = faces.vectors[split.templates].astype(np.float64)
        probes = faces.vectors[np.append(split.mated, split.strangers)]
        scores = score(probes @ templates.T, templates @ templates.T)
        return outcomes_of(scores, faces.identities[split.templates], faces, split)

    return way


def margin(cosines: Floats) -> Floats:
    """By how much each person (probes, people) is ahead of the best of all others."""
    descending = -np.sort(-cosines, axis=1)
    best, second = descending[:, :1], descending[:, 1:2]
    return cosines - np.where(cosines >= best, second, best)


def mean_next(cosines: Floats) -> Floats:
    """Mean (rows, 1) of the highest cosines after the first."""
    return np.asarray(_next(cosines).mean(axis=1, keepdims=True), np.float64)


def z_norm(cosines: Floats) -> Floats:
    """In standard deviations from the mean of the highest after the first (in speaker recognition also T-norm, top K)."""
    return np.asarray((cosines - mean_next(cosines)) / _next(cosines).std(axis=1, keepdims=True), np.float64)


def s_norm(cosines: Floats, between_templates: Floats) -> Floats:
    """The mean of the norms of probe and template (adaptive S-norm: Matějka et al., Interspeech 2017)."""
    others = _next(between_templates)  # the first is the template itself
    of_templates = (cosines - others.mean(axis=1)) / others.std(axis=1)
    return np.asarray((z_norm(cosines) + of_templates) / 2, np.float64)


def less_both_means(cosines: Floats, between_templates: Floats) -> Floats:
    return cosines - mean_next(cosines) / 2 - mean_next(between_templates).T / 2


def _next(cosines: Floats) -> Floats:
    return -np.sort(-cosines, axis=1)[:, 1 : COHORT + 1]


def _best_cosines(faces: Faces, split: Split) -> tuple[NDArray[np.int64], Floats]:
    """The people, and the cosine (probes, people) to the nearest template of each."""
    people, starts = np.unique(faces.identities[split.templates], return_index=True)
    cosines = _probes(faces, split) @ faces.vectors[split.templates].T
    return people, np.maximum.reduceat(cosines, starts, axis=1)


def _mean_cosines(faces: Faces, split: Split, weights: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The people, and the cosine (probes, people) to the direction of the weighted sum of each one's templates."""
    people, starts = np.unique(faces.identities[split.templates], return_index=True)
    weighted = faces.vectors[split.templates] * weights[split.templates, None]
    sums = np.add.reduceat(weighted, starts, axis=0)
    return people, _probes(faces, split) @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T


def _average_cosines(faces: Faces, split: Split) -> Floats:
    """The average cosine (probes, people) to the templates of each."""
    _, starts, counts = np.unique(faces.identities[split.templates], return_index=True, return_counts=True)
    cosines = _probes(faces, split) @ faces.vectors[split.templates].T
    return np.asarray(np.add.reduceat(cosines, starts, axis=1) / counts, np.float64)


def _probes(faces: Faces, split: Split) -> Floats:
    return faces.vectors[np.append(split.mated, split.strangers)].astype(np.float64)


def print_table(title: str, rows: Sequence[Fnir]) -> None:
    table = Table("decided by", "FPIR", "FNIR", "95 %", "less than the first", "95 %", title=title)
    for row in rows:
        interval = f"{100 * row.lower:.2f} – {100 * row.upper:.2f}"
        less = f"{100 * row.less_lower:+.2f} – {100 * row.less_upper:+.2f}"
        table.add_row(
            row.way, f"{row.target_fpir:.1%}", f"{100 * row.fnir:.2f} %", interval, f"{100 * row.less:+.2f}", less
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    typer.run(main)
