"""Folders of photographs that the scripted pipeline sees people on, and somebody who types commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import typer
from tests.indexer.doubles import ScriptedPipeline
from typer.testing import CliRunner, Result

from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired, acquire, photographs_among
from facedex.indexer.evaluation_cli import add_commands
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.pipeline import FacePipeline


def make_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def scripted_pipeline() -> FacePipeline:
    return cast("FacePipeline", ScriptedPipeline())


def acquired_below(folder: Path) -> list[AcquiredFace | NotAcquired]:
    return list(acquire(scripted_pipeline(), photographs_among([folder])[folder], workers=2))


def faces_below(folder: Path) -> list[AcquiredFace]:
    return [each for each in acquired_below(folder) if isinstance(each, AcquiredFace)]


@dataclass(frozen=True, slots=True)
class Place:
    """What the program's callback leaves in the context."""

    data: Path
    detector: str = BUILTIN_DETECTOR
    embedder: str = BUILTIN_EMBEDDER


@dataclass(frozen=True, slots=True)
class Terminal:
    """Someone who types `facedex-index --data … grid …` and its neighbours."""

    data: Path

    def types(self, *words: object) -> Result:
        app = typer.Typer()
        add_commands(app)
        return CliRunner().invoke(app, [str(word) for word in words], obj=Place(self.data))
