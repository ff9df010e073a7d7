"""Looks for somebody in every byte of a data folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SLICE_BYTES = 32
# What all PNG files of one size have in common.
HEADER_BYTES = 64


@dataclass
class Traces:
    """What is looked for, by a name that says what it is: no match is printed with its bytes."""

    needles: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def add_vector(self, name: str, vector: NDArray[np.float32]) -> None:
        """The vector in both precisions, and pieces of it: what is left may be only a part."""
        for kind, content in (("fp32", vector.astype("<f4").tobytes()), ("fp16", vector.astype("<f2").tobytes())):
            self._add(f"{name} {kind}", content, first=0)

    def add_crop(self, name: str, content: bytes) -> None:
        self._add(f"{name} crop", content, first=HEADER_BYTES)

    def _add(self, name: str, content: bytes, *, first: int) -> None:
        self.needles[name] = content
        for start in range(first, len(content) - SLICE_BYTES, SLICE_BYTES):
            self.needles[f"{name} from {start}"] = content[start : start + SLICE_BYTES]

    def add_text(self, name: str, text: str) -> None:
        self.needles[name] = text.encode()

    def found_in(self, folder: Path) -> set[str]:
        """The files that hold a trace, each with the traces; every file below the folder is read whole."""
        contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {
            f"{path.relative_to(folder)}: {name}"
            for path, content in contents.items()
            for name, needle in self.needles.items()
            if needle in content
        }
