"""The command `facedex-index` as a whole; what its commands do is tested beside what they do it to."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.jobs.bulk import BulkEnrolment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from typer.testing import Result


def paths_of(group: object, *above: str) -> Iterator[tuple[str, ...]]:
    """Each command and group below this one, as it is typed."""
    for name, command in getattr(group, "commands", {}).items():
        yield (*above, name)
        yield from paths_of(command, *above, name)


def facedex_index(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"FACEDEX_DATA": None})


PATHS = sorted(paths_of(typer.main.get_command(app)))


def test_no_command_is_forgotten_here() -> None:
    assert {("rebuild",), ("audit",), ("audit", "verify"), ("evaluate",)} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_needs_no_data_folder(path: tuple[str, ...]) -> None:
    done = facedex_index(*path, "--help")
    assert done.exit_code == 0
    assert f" {' '.join(path)} [OPTIONS]" in done.stdout


@pytest.mark.parametrize("command", ["rebuild", "fsck", "models list", "audit verify", "keys list", "jobs list"])
def test_a_command_that_runs_without_a_data_folder_says_where_it_is_named(command: str) -> None:
    done = facedex_index(*command.split())
    assert done.exit_code == 2
    assert all(word in done.stderr for word in ("--data", "before", "FACEDEX_DATA"))


# Mistakes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files that are no photographs, of two people."""
    for name in ("ada/1.jpg", "ada/2.jpg", "eve/1.jpg"):
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / name).write_bytes(b"no photograph")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("enrol people --gallery staff --report report.txt", "--report"),
        ("enrol people --gallery staff --report people", "--report"),
        ("enrol people --gallery staff --report nowhere/report.csv", "--report"),
        ("enrol nobody --gallery staff", "no folder or file"),
        ("enrol people/ada/1.jpg --gallery staff", "is none of"),
        ("enrol torn.tar --gallery staff", "torn.tar"),
        ("enrol nobody.csv --gallery staff", "nobody.csv: names nobody"),
        ("enrol people --gallery staff --model someone-elses", "--model"),
        ("enrol people --gallery 'two words' --dry-run", "gallery"),
        ("migrate status staff --left-behind nowhere/ids.txt", "--left-behind"),
        ("fsck --json people/ada/1.jpg/findings.json", "1.jpg"),
        ("fsck --json people", "people"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_done(
    folder: Path, command: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "data").mkdir()
    (folder / "torn.tar").write_bytes(b"no tar")
    (folder / "nobody.csv").write_text("path,identity\n")
    done = facedex_index("--data", "data", *shlex.split(command))
    (line,) = done.stderr.splitlines()
    assert (done.exit_code, told in line) == (1, True)
    assert facedex_index("--data", "data", "fsck", "--gallery", "staff").exit_code == 1  # no such gallery


def test_a_data_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    done = facedex_index("--data", str(tmp_path / "data"), "keys", "create", "door", "--role", "search")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot be made" in done.stderr


@pytest.mark.parametrize("command", ["keys create door --role search --days 99999999", f"jobs show 1{'0' * 30}"])
def test_a_number_beyond_all_use_is_wrong_usage(tmp_path: Path, command: str) -> None:
    assert facedex_index("--data", str(tmp_path), *command.split()).exit_code == 2


def test_a_new_gallery_can_be_rehearsed_and_is_not_made(folder: Path, people: Path) -> None:
    source = folder / "people"
    shutil.copy(people / "person_001" / "1.jpg", source / "eve" / "2.jpg")
    (source / "nobody").mkdir()
    done = facedex_index(
        "--data", str(folder / "data"), "enrol", str(source), "--gallery", "staff", "--dry-run", "--json"
    )
    assert "gallery staff would be created" in done.stderr
    assert f"there is no photograph in {source / 'nobody'}" in done.stderr
    told = json.loads(done.stdout)
    assert (told["job"], told["items"], told["enrolled"], len(told["refusals"])) == (None, 4, 1, 3)
    assert facedex_index("--data", str(folder / "data"), "jobs", "list", "--json").stdout.strip() == "[]"
    assert facedex_index("--data", str(folder / "data"), "fsck", "--gallery", "staff").exit_code == 1  # no such gallery


def change_while_enrolling(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    run = BulkEnrolment.run

    def changed(self: BulkEnrolment, *arguments: Any) -> Generator[Any]:
        for group in run(self, *arguments):
            change()
            yield group

    monkeypatch.setattr(BulkEnrolment, "run", changed)


@pytest.mark.parametrize("what", ["a file more", "a file less"])
def test_refusals_name_what_was_looked_at_though_the_folder_changes_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    people = folder / "people"
    if what == "a file more":
        change_while_enrolling(monkeypatch, lambda: (people / "ada" / "0.jpg").write_bytes(b""))
    else:
        change_while_enrolling(monkeypatch, (people / "eve" / "1.jpg").unlink)
    done = facedex_index("--data", str(folder / "data"), "enrol", str(people), "--gallery", "staff", "--json")
    assert done.exit_code == 0
    refused = [(each["item"], each["identity"]) for each in json.loads(done.stdout)["refusals"]]
    looked_at = [("ada/1.jpg", "ada"), ("ada/2.jpg", "ada"), ("eve/1.jpg", "eve")]
    assert refused == [(str(people / path), identity) for path, identity in looked_at]
