"""The parts of README.md that are generated. `python -m tests.packaging.readme` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"
HELP = re.compile(r"<!-- help: (?P<command>[^>]+?) -->\n(?:<details>.*?</details>\n)?", re.DOTALL)


@lru_cache
def help_of(command: str) -> str:
    """What a command prints with --help on a terminal of 100 columns without colours."""
    program, *rest = command.split()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FACEDEX_", "FORCE_", "CLICOLOR"))
    }
    environment |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "TERM": "dumb", "NO_COLOR": "1"}
    environment.pop("GITHUB_ACTIONS", None)
    script = Path(sys.executable).parent / program
    done = subprocess.run([script, *rest, "--help"], check=True, capture_output=True, text=True, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def with_help(text: str) -> str:
    """The README with each help text as it is now."""

    def block(match: re.Match[str]) -> str:
        command = match["command"]
        return (
            f"<!-- help: {command} -->\n<details><summary><code>{command} --help</code></summary>\n\n"
            f"```\n{help_of(command)}\n```\n\n</details>\n"
        )

    return HELP.sub(block, text)


if __name__ == "__main__":
    README.write_text(with_help(README.read_text()))
