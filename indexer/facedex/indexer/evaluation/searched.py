"""Whom the numbers of searches mean, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of people by their numbers, and the photographs of searches, row by row; empty where unknown.

    templates: the photograph that is enrolled, by the number of the person.
    """

    names: dict[int, str] = field(default_factory=dict[int, str])
    non_mated: tuple[Path, ...] = ()
    mated: tuple[Path, ...] = ()
    templates: dict[int, Path] = field(default_factory=dict["int", "Path"])

    def name(self, number: int) -> str:
        return self.names.get(number, f"#{number}")
