"""The command `facedex-train`: models for facedex, made or brought along."""

from __future__ import annotations

import typer

from facedex.training import detector_cli, embedder_cli, import_cli, refiner_cli, toy_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains the networks that facedex finds and embeds faces with, and imports those of other projects.",
)
app.command("toy")(toy_cli.draw_toy)
app.command("embedder")(embedder_cli.train_embedder)
app.command("detector")(detector_cli.train_detector)
app.command("refiner")(refiner_cli.train_refiner)
app.command("import")(import_cli.import_model)


def main() -> None:
    """The entry point of the console script."""
    app()
