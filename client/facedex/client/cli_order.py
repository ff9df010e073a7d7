"""Options of the program itself, written behind a command: `facedex identify staff a.jpg --server HOST:PORT`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from typer.core import TyperOption

if TYPE_CHECKING:
    from collections.abc import Sequence


def program_options_first(program: typer.Typer, words: Sequence[str]) -> list[str]:
    """The words of a command line with the program's own options before its command, which is where typer reads them.

    No command may have an option of the same name. What follows `--` stays where it is.
    """
    needs_value = _program_options(program)
    ours: list[str] = []
    others: list[str] = []
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        name, has_value, _ = word.partition("=")
        (ours if name in needs_value else others).append(word)
        if needs_value.get(name) and not has_value and rest:
            ours.append(rest.pop(0))
    if ours and needs_value.get(ours[-1]):
        return ours  # its value is missing, and must not be the command
    return [*ours, *others, *rest]


def _program_options(program: typer.Typer) -> dict[str, bool]:
    """Whether each needs a value; without those, as `--version`, that end the program at once."""
    options = [each for each in typer.main.get_command(program).params if isinstance(each, TyperOption)]
    return {name: not each.is_flag for each in options if not each.is_eager for name in each.opts}
