"""One target under atheris, in a process of its own: libFuzzer ends the process when its time is over."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    name, *arguments = sys.argv[1:]
    atheris: Any = importlib.import_module("atheris")  # it has no types, and is there only for `make fuzz`
    with atheris.instrument_imports(include=["facedex"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415  (instrumented while it is imported)
    (target,) = (each for each in TARGETS if each.name == name)
    run = target.make(Path(tempfile.mkdtemp()))
    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
