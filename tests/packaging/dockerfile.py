"""The steps of a Dockerfile, followed in a folder that stands for the root of the image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# What the image has of its own; all else in a step is a word of a command.
OWN_PATHS = re.compile(r"(?<![\w/.])/(?=(?:opt|src|var/lib)\b)")
MADE_A_FOLDER = re.compile(r"python -m venv (\S+)")
STEP_SECONDS = 100


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, upper case, and the rest of its line."""

    instruction: str
    rest: str

    def words(self) -> list[str]:
        """Those of a command in JSON form."""
        return [str(each) for each in json.loads(self.rest[self.rest.index("[") :])]


def stages_of(dockerfile: str) -> list[list[Step]]:
    """Its steps, by stage; the first of each stage is FROM."""
    stages: list[list[Step]] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        stages[-1].append(Step(instruction, rest.strip()))
    return stages


class Kitchen:
    """Follows the steps of a stage below `root`, from the files of `context` and nothing else.

    What pip would fetch comes from this Python's own packages: a virtual environment that a step makes sees them, so that only
    facedex itself is installed, from the files that were copied.
    """

    def __init__(self, root: Path, context: Path) -> None:
        self.root = root
        self._context = context
        self._folder = root

    def placed(self, text: str) -> str:
        """A text with the image's own paths below the root."""
        return OWN_PATHS.sub(f"{self.root}/", text)

    def follow(self, step: Step) -> None:
        if step.instruction == "WORKDIR":
            self._folder = Path(self.placed(step.rest))
            self._folder.mkdir(parents=True)
        elif step.instruction == "COPY":
            *sources, target = step.rest.split()
            for source in sources:
                self._copy(self._context / source, target)
        elif step.instruction == "RUN":
            self._run(step.rest)

    def _copy(self, source: Path, target: str) -> None:
        if source.is_dir():
            shutil.copytree(source, self._folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, self._folder / target)

    def _run(self, command: str) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which means that it is not isolated
            "PIP_NO_COMPILE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        done = subprocess.run(
            ["/bin/sh", "-c", self.placed(command)],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        for made in MADE_A_FOLDER.findall(self.placed(command)):
            (packages,) = Path(made).glob("lib/python*/site-packages")
            (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
            # Python 3.11 brings one that is too old; an engine's pip would fetch that of pyproject.toml.
            shutil.rmtree(packages / "setuptools", ignore_errors=True)


def environment_of(stage: list[Step]) -> dict[str, str]:
    """The variables that its ENV lines set."""
    words = [word for step in stage if step.instruction == "ENV" for word in shlex.split(step.rest)]
    return dict(word.split("=", 1) for word in words)


def only(stage: list[Step], instruction: str) -> Step:
    (step,) = (each for each in stage if each.instruction == instruction)
    return step
