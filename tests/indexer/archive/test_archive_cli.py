"""`facedex-index export`, `import` and `export-erasures`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.indexer.archive.moving import ADA, PASSPHRASE
from tests.indexer.erasure_site import ErasureSite
from typer.testing import CliRunner, Result

from facedex.indexer.archive_cli import PASSPHRASE_VARIABLE
from facedex.indexer.cli import app

FAILED = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with two people."""
    site = ErasureSite(tmp_path / "data")
    site.enrol(ADA)
    site.enrol("grace")
    site.close()
    return tmp_path / "data"


def run(data: Path, *arguments: object, answer: str = "", **environment: str) -> Result:
    everything = {"COLUMNS": "200", "FACEDEX_PASSPHRASE": "", **environment}
    command = ["--data", str(data), *(str(each) for each in arguments)]
    return CliRunner().invoke(app, command, env=everything, input=answer)


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_gallery_moves_with_two_commands(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "staff.zip"
    exported = document(run(folder, "export", "staff", archive, "--json"))
    assert (exported["identities"], exported["templates"], exported["is_encrypted"]) == (2, 4, False)
    assert exported["bytes"] == archive.stat().st_size
    imported = document(run(tmp_path / "new", "import", archive, "--gallery", "copy", "--json"))
    assert (imported["gallery"], imported["new"], imported["new_templates"]) == ("copy", 2, 4)
    again = document(run(tmp_path / "new", "import", archive, "--gallery", "copy", "--json"))
    assert (again["new"], again["unchanged"], again["done"]) == (0, 2, 2)


def test_people_read_what_became_of_it(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "staff.zip"
    assert "not encrypted: keep it like the faces themselves" in run(folder, "export", "staff", archive).stdout
    rehearsal = run(tmp_path / "new", "import", archive, "--dry-run").stdout
    assert "would be: 2 new, 0 completed, 0 unchanged of 2 people in gallery staff" in rehearsal
    assert "2 new" in run(tmp_path / "new", "import", archive).stdout


def test_nothing_that_is_printed_names_anybody(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "staff.zip"
    results = [run(folder, "export", "staff", archive), run(tmp_path / "new", "import", archive)]
    assert all(each.exit_code == 0 for each in results)
    assert not any(ADA in each.output or "grace" in each.output for each in results)


def test_erasures_are_carried_by_a_file_of_their_own(folder: Path, tmp_path: Path) -> None:
    archive, erased = tmp_path / "staff.zip", tmp_path / "erased.zip"
    document(run(folder, "export", "staff", archive, "--json"))
    site = ErasureSite(folder)
    site.clock.advance(days=10_000)
    site.gallery.delete_identity(ADA)
    site.close()
    assert document(run(folder, "export-erasures", erased, "--json"))["erasures"] == 1
    assert (
        document(run(tmp_path / "new", "import", archive, "--erasures", erased, "--dry-run", "--json"))["erased"] == 1
    )
    result = run(tmp_path / "new", "import", archive, "--erasures", erased)
    assert "left out: 1 people and 0 templates that were erased since" in result.stdout
    assert document(run(tmp_path / "other", "import", erased, "--json"))["erasures_new"] == 1
    assert document(run(tmp_path / "other", "import", archive, "--json"))["erased"] == 1


# The pass phrase


def test_the_pass_phrase_comes_from_a_file_the_environment_or_a_question(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSPHRASE}\nsecond line\n")
    archives = [tmp_path / f"{number}.zip" for number in range(3)]
    results = [
        run(folder, "export", "staff", archives[0], "--passphrase-file", secret, "--json"),
        run(folder, "export", "staff", archives[1], "--json", **{PASSPHRASE_VARIABLE: PASSPHRASE}),
        run(folder, "export", "staff", archives[2], "--ask-passphrase", answer=f"{PASSPHRASE}\n{PASSPHRASE}\n"),
    ]
    assert [each.exit_code for each in results] == [0, 0, 0]
    assert "(encrypted)" in results[2].stdout
    for number, archive in enumerate(archives):
        assert ADA.encode() not in archive.read_bytes()
        opened = run(tmp_path / f"new{number}", "import", archive, "--passphrase-file", secret, "--json")
        assert document(opened)["new"] == 2


@pytest.mark.parametrize(
    ("environment", "told"),
    [({}, "--passphrase-file or FACEDEX_PASSPHRASE"), ({PASSPHRASE_VARIABLE: "another"}, "not the pass phrase")],
)
def test_without_the_pass_phrase_nothing_is_imported(
    folder: Path, tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    archive = tmp_path / "staff.zip"
    run(folder, "export", "staff", archive, **{PASSPHRASE_VARIABLE: PASSPHRASE})
    result = run(tmp_path / "new", "import", archive, **environment)
    assert (result.exit_code, (tmp_path / "new").exists()) == (FAILED, False)
    assert told in result.output
    assert PASSPHRASE not in result.output


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_pass_phrase_is_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    result = run(folder, "export", "staff", tmp_path / "a.zip", "--passphrase-file", tmp_path / "secret")
    assert (result.exit_code, (tmp_path / "a.zip").exists()) == (FAILED, False)
    assert "--passphrase-file: " in result.output


# Errors are one line


def test_each_error_is_one_line_that_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "staff.zip"
    run(folder, "export", "staff", archive)
    (tmp_path / "half.zip").write_bytes(archive.read_bytes()[:1_000])
    (tmp_path / "foreign.zip").write_bytes(b"something else")
    cases = {
        ("export", "staff", archive): "there already",
        ("export", "staff", tmp_path / "nowhere" / "a.zip"): "no folder",
        ("export", "missing", tmp_path / "b.zip"): "no gallery",
        ("export", "staff", tmp_path / "b.zip", "--person", "nobody"): "no identity",
        ("import", tmp_path / "none.zip"): "No such file",
        ("import", tmp_path / "half.zip"): "damaged",
        ("import", tmp_path / "foreign.zip"): "no archive of facedex",
        ("import", archive, "--gallery", "A B"): "--gallery",
    }
    for arguments, told in cases.items():
        result = run(folder, *arguments)
        assert result.exit_code == FAILED, arguments
        assert result.output.strip().startswith("facedex-index: "), arguments
        assert told in result.output, arguments
        assert len(result.output.strip().splitlines()) == 1, arguments
    assert not (tmp_path / "b.zip").exists()


def test_one_persons_archive_is_made_with_an_option(folder: Path, tmp_path: Path) -> None:
    exported = document(run(folder, "export", "staff", tmp_path / "ada.zip", "--person", ADA, "--json"))
    assert (exported["identities"], exported["templates"], exported["crops"]) == (1, 2, 2)
