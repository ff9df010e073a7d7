"""A deeper network begins as what the shallower one has become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from facedex.training.backbones.compact import CompactNet, CompactShape
from facedex.training.backbones.growing import grown
from facedex.training.errors import CheckpointUnusable
from facedex.training.start import start_from

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS = (4, 6, 8)


def a_net(*blocks: int, channels: tuple[int, int, int] = CHANNELS, seed: int = 1) -> CompactNet:
    """As it is after some training: no normalisation is any more what it was at first."""
    torch.manual_seed(seed)
    first, second, third = blocks
    net = CompactNet(16, side=32, shape=CompactShape(channels, (first, second, third), hidden=8))
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "var" in name else value.add_(0.2 * torch.randn_like(value))
    return net.eval()


CROPS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("blocks", [(1, 2, 2), (1, 2, 3), (2, 2, 2), (1, 4, 4), (3, 3, 3)])
def test_it_makes_of_each_crop_what_the_one_before_made(blocks: tuple[int, int, int]) -> None:
    before, after = a_net(1, 2, 2), a_net(*blocks, seed=3)
    assert not torch.allclose(after(CROPS), before(CROPS), atol=1e-2)
    after.load_state_dict(grown(before.state_dict(), after))
    assert torch.allclose(after(CROPS), before(CROPS), atol=1e-6)


def test_what_was_added_learns_too() -> None:
    net = a_net(1, 2, 3, seed=3)
    net.load_state_dict(grown(a_net(1, 2, 2).state_dict(), net))
    net.train()
    added = [value for name, value in net.named_parameters() if name.startswith("features.8.")]
    before = [value.detach().clone() for value in added]
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # the first step wakes the last normalisation, the second what lies before it
        optimiser.zero_grad()
        net(CROPS).square().mean().backward()
        optimiser.step()
    assert all(not torch.equal(now, then) for now, then in zip(added, before, strict=True))


@pytest.mark.parametrize(
    "other",
    [a_net(2, 2, 3), a_net(1, 2, 2, channels=(4, 6, 10))],
    ids=["more blocks in a stage", "other channels"],
)
def test_a_net_that_does_not_fit_is_refused(other: CompactNet, tmp_path: Path) -> None:
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointUnusable, match="another network"):
        start_from(tmp_path / "other.pt", a_net(1, 4, 4))


@pytest.mark.parametrize("content", [[1, 2], {3: torch.ones(1)}, {"features.x": torch.ones(1)}, {}])
def test_what_holds_no_weights_of_such_a_net_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointUnusable):
        start_from(tmp_path / "other.pt", a_net(1, 2, 2))
