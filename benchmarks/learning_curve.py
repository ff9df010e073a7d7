"""What more training gave the built-in embedder, and what still more would give: the curve behind its model card.

    python -m benchmarks.learning_curve --picture curve.svg

`learning_curve.json` holds what was measured after each stage of the training (docs/decisions/0501-the-trainer.md): samples
seen in all; the mean cosine to the teacher on people whom nobody learnt from, over a face and its mirror image (both of which
`compact-mirrored` sees at once); and, by `benchmarks.builtin_models` on faces/lfw-dev, rank-1 and the share found at an FPIR
of 1 %, with its 95 % interval.

Two straight lines are laid through these points, as far as they are of the network that it began with: log(1 - cosine) over
log(samples), a power law, and the share found over log(1 - cosine). Where they reach a mark is an extrapolation, so the range
is told that the lines span when each stage in turn is left out. A network of another size follows a law of its own; its stages
are shown beside.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.report import print_table, write_json
from benchmarks.searchers import peer
from numpy.typing import NDArray

STORED = Path(__file__).with_name("learning_curve.json")
MARKS = {"mobileface_v2": 0.732, "the aim": 0.80}
FIRST_NETWORK = "compact"
LOOKS = (
    {"marker": "o", "color": "tab:blue"},
    {"marker": "s", "color": "tab:red"},
    {"marker": "D", "color": "tab:purple"},
)
"""Of the stages of each network, in the picture; the law is drawn in the first one's colour."""
LEAST_STAGES = 4
"""Two lines, and one stage may be left out."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What was measured when a part of the training was over."""

    samples: int
    cosine: float
    rank_1: float
    found: float
    interval: tuple[float, float]
    network: str = FIRST_NETWORK

    @property
    def distance(self) -> float:
        return 1 - self.cosine


@dataclass(frozen=True, slots=True)
class Law:
    """Both lines: `log_distance = offset + exponent * log(samples)` and `found = level + gain * log_distance`."""

    exponent: float
    offset: float
    gain: float
    level: float

    def distance(self, samples: float) -> float:
        return math.exp(self.offset + self.exponent * math.log(samples))

    def found(self, samples: float) -> float:
        return self.level + self.gain * math.log(self.distance(samples))

    def samples_until(self, found: float) -> float:
        """So many give this share, if the lines go on as they are."""
        return math.exp(((found - self.level) / self.gain - self.offset) / self.exponent)


def main(
    *,
    stages: Annotated[Path, typer.Option(help="JSON file of the stages.")] = STORED,
    picture: Annotated[Path | None, typer.Option(help="Draw the curve here (.svg, .png).")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Prints the stages, the law through them, and where it reaches each mark."""
    measured = stages_of(stages)
    first = of_the_first_network(measured)
    law, others = law_of(first), laws_without_one(first)
    _print_stages(measured, law)
    _print_marks(law, others)
    if picture is not None:
        draw(measured, law, picture)
    if as_json is not None:
        write_json(as_json, as_document(law, others))


def stages_of(path: Path) -> list[Stage]:
    """In the order of training."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    stages = [_stage(row) for row in rows]
    if (count := len(of_the_first_network(stages))) < LEAST_STAGES:
        raise typer.BadParameter(
            f"{path} has {count} stages of {FIRST_NETWORK}, and {LEAST_STAGES} are needed", param_hint="--stages"
        )
    return stages


def _stage(row: dict[str, Any]) -> Stage:
    lower, upper = row["interval"]
    network = row.get("network", FIRST_NETWORK)
    return Stage(row["samples"], row["cosine"], row["rank_1"], row["found"], (lower, upper), network)


def of_the_first_network(stages: list[Stage]) -> list[Stage]:
    """Those that one law can hold for."""
    return [each for each in stages if each.network == FIRST_NETWORK]


def law_of(stages: list[Stage]) -> Law:
    """By least squares."""
    distances = np.log([each.distance for each in stages])
    exponent, offset = _line(np.log([each.samples for each in stages]), distances)
    gain, level = _line(distances, np.array([each.found for each in stages]))
    return Law(exponent, offset, gain, level)


def laws_without_one(stages: list[Stage]) -> list[Law]:
    """Each leaves another stage out."""
    return [law_of(stages[:number] + stages[number + 1 :]) for number in range(len(stages))]


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def as_document(law: Law, others: list[Law]) -> dict[str, Any]:
    """For programs."""
    return {
        "exponent": law.exponent,
        "exponents": sorted(each.exponent for each in others),
        "samples_until": {
            name: {"found": mark, "samples": law.samples_until(mark), "range": _range(others, mark)}
            for name, mark in MARKS.items()
        },
    }


def _range(laws: list[Law], mark: float) -> tuple[float, float]:
    needed = [each.samples_until(mark) for each in laws]
    return min(needed), max(needed)


def _print_stages(stages: list[Stage], law: Law) -> None:
    headings = ("network", "millions of samples", "1 - cosine", "the law", "rank-1", "found at FPIR 1 %", "the law")
    rows = [
        (
            each.network,
            f"{each.samples / 1e6:.2f}",
            f"{each.distance:.3f}",
            f"{law.distance(each.samples):.3f}",
            f"{each.rank_1:.1%}",
            f"{each.found:.1%} ({each.interval[0]:.1%} to {each.interval[1]:.1%})",
            f"{law.found(each.samples):.1%}",
        )
        for each in stages
    ]
    print_table("The built-in embedder, stage by stage", headings, rows)


def _print_marks(law: Law, others: list[Law]) -> None:
    exponents = sorted(each.exponent for each in others)
    print(f"1 - cosine falls as samples^{law.exponent:.2f} ({exponents[0]:.2f} to {exponents[-1]:.2f}).")
    rows = []
    for name, mark in MARKS.items():
        least, most = _range(others, mark)
        needed = law.samples_until(mark)
        rows.append((f"{name}, {mark:.1%}", f"{needed / 1e6:.1f}", f"{least / 1e6:.1f} to {most / 1e6:.1f}"))
    print_table("Where the law is at each mark, in millions of samples", ("", "all stages", "one left out"), rows)


def draw(stages: list[Stage], law: Law, path: Path) -> None:
    """The distance to the teacher, and what is found, over samples."""
    peer("matplotlib").use("Agg")
    figure, (left, right) = peer("matplotlib.pyplot").subplots(1, 2, figsize=(10, 4))
    ahead = np.geomspace(stages[0].samples, 1.1 * max(law.samples_until(each) for each in MARKS.values()), 60) / 1e6
    for network, looks in zip(dict.fromkeys(each.network for each in stages), cycle(LOOKS), strict=False):
        _draw_stages(left, right, [each for each in stages if each.network == network], **looks)
    left.plot(ahead, [law.distance(each * 1e6) for each in ahead], "--", color="tab:blue")
    left.set(ylabel="1 - cosine to the teacher, unseen people", title=f"falls as samples^{law.exponent:.2f}")
    right.plot(ahead, [law.found(each * 1e6) for each in ahead], "--", color="tab:blue", label="the law")
    for (name, mark), colour in zip(MARKS.items(), ("tab:orange", "tab:green"), strict=True):
        right.axhline(mark, color=colour, linewidth=1, label=f"{name}, {mark:.1%}")
    right.set(ylabel="found at FPIR 1 %, faces/lfw-dev", title="what comes of it")
    right.legend(loc="lower right", fontsize="small")
    ticks = [1, 2, 4, 8, 16]
    for axes in (left, right):
        axes.set(xlabel="millions of samples", xscale="log")
        axes.set_xticks(ticks, [str(each) for each in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_stages(left: Any, right: Any, stages: list[Stage], **style: Any) -> None:
    """Those of one network."""
    samples = [each.samples / 1e6 for each in stages]
    left.plot(samples, [each.distance for each in stages], linestyle="", **style)
    found = np.array([each.found for each in stages])
    margins = np.abs(np.array([each.interval for each in stages]).T - found)
    label = f"{stages[0].network}, measured, 95 %"
    right.errorbar(samples, found, yerr=margins, linestyle="", capsize=3, label=label, **style)


if __name__ == "__main__":
    typer.run(main)
