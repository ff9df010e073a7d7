"""`facedex-train import`: weights of other projects as models of facedex."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facedex.training.cli_session import UNSTATED, CommercialUse, Licence, Output, good_order, say
from facedex.training.crops import SIDE
from facedex.training.export import Terms, UnitVectors, embedder_graph, embedder_manifest, write_model
from facedex.training.importing import import_checkpoint

_RGB_SCALE = 1 / 127.5
"""Both projects normalise with mean and deviation 0.5, in the order red, green, blue."""


def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(help="face.evoLVe's IR-50, or an IResNet of arcface_torch (.pth, .pt).")
    ],
    *,
    name: Annotated[str, typer.Option(help="What the model is called.")],
    output: Output = Path(),
    licence: Licence = UNSTATED,
    commercial_use: CommercialUse = False,
) -> None:
    """Turns a PyTorch checkpoint into an ONNX file with its manifest, proved against torch."""
    with good_order():
        imported = import_checkpoint(checkpoint)
        graph = embedder_graph(UnitVectors(imported.network), side=SIDE)
        terms = Terms(name, licence, commercial_use, f"{checkpoint.name}, imported as {imported.name}")
        manifest = embedder_manifest(graph, terms, channels="RGB", scale=_RGB_SCALE, mirror_average=False)
        write_model(output, graph, manifest)
    say(f"{imported.name}, as {output / name}.onnx; take it in with")
    say(f"  facedex-index --data DIR models add {output / name}.onnx --manifest {output / name}.toml")
