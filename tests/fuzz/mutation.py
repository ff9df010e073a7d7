"""Seeded mutations of a corpus, for the short run: where atheris cannot be installed, and in every test run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

MOST_CHANGES = 4
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\n",
    b"nan",
)


def mutations(seeds: Sequence[bytes], *, seed: int) -> Iterator[bytes]:
    """The seeds themselves, then mutations of them without end; the same for the same seed."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, MOST_CHANGES)):
            _change(content, seeds, chance)
        yield bytes(content)


def _change(content: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randint(0, len(content))
    stop = min(len(content), start + chance.randint(0, 16))
    match chance.randrange(6):
        case 0:
            del content[start:stop]
        case 1:
            content[start:stop] = chance.randbytes(stop - start)
        case 2:
            content[start:start] = chance.choice(INTERESTING)
        case 3:
            content[start:stop] = chance.choice(INTERESTING)
        case 4:
            other = chance.choice(seeds)
            cut = chance.randint(0, len(other))
            content[start:stop] = other[cut : cut + chance.randint(0, 32)]
        case _:
            if start < len(content):
                content[start] ^= 1 << chance.randrange(8)
