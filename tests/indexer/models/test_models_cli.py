"""`facedex-index models`: for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from facedex.indexer.models_cli import app
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER


@dataclass(frozen=True, slots=True)
class Place:
    data: Path


@dataclass(frozen=True, slots=True)
class Terminal:
    """Someone who types `facedex-index --data … models …`."""

    place: Place

    def types(self, *words: str, answer: str = "") -> Result:
        return CliRunner().invoke(app, words, obj=self.place, input=answer)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(Place(tmp_path / "data"))


def test_a_list_shows_name_licence_and_threshold(terminal: Terminal) -> None:
    result = terminal.types("list")
    assert result.exit_code == 0
    assert all(text in result.stdout for text in (BUILTIN_DETECTOR, BUILTIN_EMBEDDER, " 0.5 ", "256-d"))


def test_a_list_for_programs_is_one_json_document(terminal: Terminal) -> None:
    models = json.loads(terminal.types("list", "--json").stdout)
    assert [model["kind"] for model in models] == ["detector", "embedder"]
    assert models[1]["commercial_use"] is False


def test_an_added_model_is_listed(terminal: Terminal, files: tuple[Path, Path]) -> None:
    onnx, manifest = files
    result = terminal.types("add", str(onnx), "--manifest", str(manifest))
    assert (result.exit_code, result.stdout) == (0, "added the embedder renamed\n")
    assert "renamed" in terminal.types("list").stdout


def test_an_error_is_one_line_and_exit_code_1(terminal: Terminal, files: tuple[Path, Path]) -> None:
    onnx, manifest = files
    onnx.write_bytes(b"tampered")
    result = terminal.types("add", str(onnx), "--manifest", str(manifest))
    assert result.exit_code == 1
    assert result.stderr.startswith("facedex-index: downloaded.onnx has sha256")
    assert result.stderr.count("\n") == 1


def test_a_forgotten_manifest_is_a_usage_error(terminal: Terminal, files: tuple[Path, Path]) -> None:
    assert terminal.types("add", str(files[0])).exit_code == 2


def test_sound_models_verify_with_exit_code_0(terminal: Terminal) -> None:
    result = terminal.types("verify")
    assert result.exit_code == 0
    assert result.stdout.count("sound") == 2


def test_a_tampered_model_verifies_with_exit_code_1(terminal: Terminal, files: tuple[Path, Path]) -> None:
    onnx, manifest = files
    terminal.types("add", str(onnx), "--manifest", str(manifest))
    (terminal.place.data / "models" / "renamed.onnx").write_bytes(b"tampered")
    result = terminal.types("verify", "--json")
    assert result.exit_code == 1
    problems = {entry["name"]: entry["problem"] for entry in json.loads(result.stdout)}
    assert problems[BUILTIN_EMBEDDER] == ""
    assert "sha256" in problems["renamed"]


def test_pull_without_a_name_lists_the_well_known_models_with_their_licences(terminal: Terminal) -> None:
    result = terminal.types("pull")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("yunet", "sface", "buffalo_l", "auraface", "MIT"))
    assert len(json.loads(terminal.types("pull", "--json").stdout)) == 6


def test_pull_shows_the_licence_and_fetches_nothing_without_consent(terminal: Terminal) -> None:
    result = terminal.types("pull", "buffalo_l", answer="n\n")
    assert result.exit_code == 1
    assert "non-commercial research; commercial use is not allowed" in result.stderr
    assert not terminal.place.data.exists()


def test_an_unknown_public_model_is_answered_with_the_known_ones(terminal: Terminal) -> None:
    result = terminal.types("pull", "nobody", "--yes")
    assert result.exit_code == 1
    assert "yunet, sface, buffalo_l" in result.stderr
