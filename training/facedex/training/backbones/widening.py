"""A wider network that begins as what a narrower one has become (Net2WiderNet: Chen, Goodfellow & Shlens, arXiv 1511.05641).

Each new channel is a copy of an old one, and whoever reads the copies shares among them what the old one counted for. So the
wider network computes the same at first; a little noise in copied weights lets the copies go different ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor

from facedex.training.backbones.compact import CompactNet, Residual

NOISE: Final = 0.02
"""One standard deviation, as a share of each weight."""
_HEAD: Final = "head.0.0.weight"
_COLOURS: Final = 3


def widened(
    state: Mapping[str, Tensor], net: CompactNet, chance: Generator, *, noise: float = NOISE
) -> dict[str, Tensor]:
    """A state dict of `net` from one with as many channels in each stage, or fewer; that of another network as it is."""
    if not _fits(state, net.state_dict()):
        return dict(state)
    return dict(state) | dict(_Widening(state, net, chance, noise).layers())


def _fits(narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor]) -> bool:
    return narrow.keys() == wide.keys() and all(_is_within(name, narrow[name].shape, wide[name].shape) for name in wide)


def _is_within(name: str, narrow: torch.Size, wide: torch.Size) -> bool:
    """The head grows by what it reads alone."""
    grows = name == _HEAD or not name.startswith("head.")
    return narrow == wide or (
        grows and len(narrow) == len(wide) and all(a <= b for a, b in zip(narrow, wide, strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Copies:
    """Which old channel each new one is a copy of."""

    of: Tensor
    counts: Tensor
    """How many copies each old channel has."""

    @staticmethod
    def drawn(old: int, new: int, chance: Generator) -> _Copies:
        """All old channels in their order, and then any of them."""
        of = torch.cat([torch.arange(old), torch.randint(old, (new - old,), generator=chance)])
        return _Copies(of, torch.bincount(of, minlength=old))

    @property
    def shares(self) -> Tensor:
        """What each copy counts for where copies are read, as the weight of a convolution is multiplied by it."""
        return (1 / self.counts[self.of])[:, None, None]


class _Widening:
    """Layer by layer, each reading the copies that the one before it made."""

    def __init__(self, state: Mapping[str, Tensor], net: CompactNet, chance: Generator, noise: float) -> None:
        self._old = state
        self._net = net
        self._new = net.state_dict()
        self._chance = chance
        self._noise = noise

    def layers(self) -> Iterator[tuple[str, Tensor]]:
        given = _Copies.drawn(_COLOURS, _COLOURS, self._chance)
        for number, layer in enumerate(self._net.features):
            place = f"features.{number}."
            if isinstance(layer, Residual):
                inner = self._drawn(f"{place}change.0.0.weight")
                yield from self._convolution(f"{place}change.0.0.", f"{place}change.0.1.", given, inner)
                yield from self._convolution(f"{place}change.1.", f"{place}change.2.", inner, given)
            else:
                made = self._drawn(f"{place}0.weight")
                yield from self._convolution(f"{place}0.", f"{place}1.", given, made)
                given = made
        yield _HEAD, self._weight(_HEAD, given, self._drawn(_HEAD))

    def _drawn(self, weight: str) -> _Copies:
        return _Copies.drawn(len(self._old[weight]), len(self._new[weight]), self._chance)

    def _convolution(
        self, place: str, normalisation: str, read: _Copies, made: _Copies
    ) -> Iterator[tuple[str, Tensor]]:
        yield f"{place}weight", self._weight(f"{place}weight", read, made)
        for name in ("weight", "bias", "running_mean", "running_var"):
            yield f"{normalisation}{name}", self._old[f"{normalisation}{name}"][made.of]

    def _weight(self, name: str, read: _Copies, made: _Copies) -> Tensor:
        weight = self._old[name][made.of][:, read.of] * read.shares
        if weight.shape == self._old[name].shape:
            return weight
        return weight * (1 + self._noise * torch.randn(weight.shape, generator=self._chance))
