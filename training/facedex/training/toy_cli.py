"""`facedex-train toy`: what a margin does, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from facedex.training.cli_session import good_order
from facedex.training.toy import ToySettings, draw_circles, learn_circles


def draw_toy(
    *,
    output: Annotated[Path, typer.Option(help="Where the picture goes: .png, .svg or .pdf.")] = Path("toy.png"),
    steps: Annotated[int, typer.Option(min=1, help="How long each network learns.")] = 1500,
    seed: Annotated[int, typer.Option(help="Another number gives other people.")] = 0,
) -> None:
    """Draws eight people embedded in two dimensions, with softmax and with ArcFace."""
    torch.set_num_threads(1)  # the networks are too small to share
    with good_order():
        circles = learn_circles(ToySettings(steps=steps, seed=seed))
        draw_circles(circles, output)
    table = Table("loss", "within a person", "between neighbours", "closest neighbours", title=f"Angles, in {output}")
    for circle in circles:
        angles = (circle.within_degrees, circle.between_degrees, circle.closest_degrees)
        table.add_row(circle.kind, *(f"{angle:.1f}°" for angle in angles))
    Console().print(table)
