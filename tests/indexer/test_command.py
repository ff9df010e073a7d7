"""The command `facedex-index` as a whole; what its commands do is tested beside what they do it to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from facedex.indexer.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

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
