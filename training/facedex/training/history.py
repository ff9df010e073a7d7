"""What a run's figures were, step by step, as a file and as a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

_FILE, _PICTURE = "history.json", "curves.png"


@dataclass(frozen=True, slots=True)
class Entry:
    """Figures by name after so many steps."""

    step: int
    figures: dict[str, float]


@dataclass(slots=True)
class History:
    """Entries in order of their steps."""

    entries: list[Entry] = field(default_factory=list[Entry])

    def add(self, step: int, figures: dict[str, float]) -> None:
        self.entries.append(Entry(step, figures))

    def save(self, folder: Path) -> None:
        """As JSON, and drawn."""
        document = [{"step": entry.step, **entry.figures} for entry in self.entries]
        (folder / _FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")
        draw_curves(self, folder / _PICTURE)

    def as_plain(self) -> list[tuple[int, dict[str, float]]]:
        """What a checkpoint keeps."""
        return [(entry.step, entry.figures) for entry in self.entries]

    @staticmethod
    def of_plain(entries: list[tuple[int, dict[str, float]]]) -> History:
        return History([Entry(step, dict(figures)) for step, figures in entries])


def draw_curves(history: History, picture: Path) -> None:
    """Each figure over the steps, under one another."""
    names = sorted({name for entry in history.entries for name in entry.figures})
    if not names:
        return
    drawing = Figure(figsize=(7, 1.8 * len(names)), layout="constrained")
    places = drawing.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for place, name in zip(places, names, strict=True):
        shown = [entry for entry in history.entries if name in entry.figures]
        place.plot([entry.step for entry in shown], [entry.figures[name] for entry in shown], marker=".")
        place.set_ylabel(name)
        place.grid(visible=True, alpha=0.3)
    places[-1].set_xlabel("step")
    drawing.savefig(picture)
