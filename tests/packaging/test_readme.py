"""The README stays true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.packaging.readme import README, with_help

ROOT = README.parent
TEXT = README.read_text()


def test_the_shown_help_is_what_the_commands_print() -> None:
    assert with_help(TEXT) == TEXT, "run `python -m tests.packaging.readme`"


def test_the_check_of_the_help_can_fail() -> None:
    changed = TEXT.replace("Usage: facedex-server serve", "Usage: facedex-server swerve")
    assert with_help(changed) != changed


def test_the_two_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target} " in TEXT
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_ci_runs_the_commands_that_contributors_are_told_of() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make lint\n" in script
    assert "make test\n" in script


def test_every_top_level_folder_is_explained() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*/"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    folders = {name.split("/")[0] for name in listed if "/" in name and not name.startswith(".")}
    assert {folder for folder in folders if f"`{folder}/" not in TEXT} == set()


@pytest.mark.timeout(90)
def test_the_example_runs_as_it_is_printed(tmp_path: Path, people: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "ada.jpg").write_bytes((people / "person_001" / "1.jpg").read_bytes())
    (tmp_path / "visitor.jpg").write_bytes((people / "person_001" / "3.jpg").read_bytes())
    server = subprocess.Popen(
        [
            Path(sys.executable).parent / "facedex-server",
            "serve",
            "--data",
            tmp_path / "data",
            "--listen",
            "127.0.0.1:0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        code = example.replace("localhost:50051", address)
        assert code != example
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    finally:
        server.terminate()
        assert server.wait(timeout=20) == 0
    assert "MATCH" in done.stdout
    assert "'ada'" in done.stdout
