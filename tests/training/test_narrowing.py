"""Blocks with fewer channels within begin with those that count most."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.networks import trained
from torch import Generator, Tensor
from typer.testing import CliRunner

from facedex.training.backbones.backbone import BackboneName, make_backbone
from facedex.training.backbones.compact import CompactNet, CompactShape
from facedex.training.backbones.narrowing import narrowed, root_mean_square
from facedex.training.cli import app
from facedex.training.loop import start_from

CROPS = torch.rand(3, 3, 32, 32, generator=Generator().manual_seed(2))
WIDE, NARROW = (4, 8, 8), (4, 5, 7)


def a_net(inner: tuple[int, int, int], *, seed: int = 1) -> CompactNet:
    return trained(CompactShape((4, 6, 8), hidden=8, inner=inner), seed=seed)


def narrower(wide: CompactNet) -> CompactNet:
    net = a_net(NARROW, seed=3)
    net.load_state_dict(narrowed(wide.state_dict(), net))
    return net


def silent(net: CompactNet, *, unread: bool) -> CompactNet:
    """Three channels of the second stage's blocks and one of the third's say nothing, or nobody reads them."""
    state = net.state_dict()
    for block, channels in ((3, [0, 3, 6]), (4, [1, 2, 7]), (6, [4]), (7, [0])):
        place = f"features.{block}.change."
        if unread:
            state[f"{place}1.weight"][:, channels] = 0
        else:
            state[f"{place}0.1.weight"][channels], state[f"{place}0.1.bias"][channels] = 0.1, -3.0
    return net


@pytest.mark.parametrize("unread", [True, False])
def test_channels_that_say_nothing_or_that_nobody_reads_are_left_out(*, unread: bool) -> None:
    wide = silent(a_net(WIDE), unread=unread)
    assert not torch.allclose(a_net(NARROW, seed=3)(CROPS), wide(CROPS), atol=1e-2)
    torch.testing.assert_close(narrower(wide)(CROPS), wide(CROPS), atol=1e-5, rtol=1e-4)


def test_a_channel_is_as_large_as_its_normalisation_lets_it_be() -> None:
    deviation, mean = torch.tensor([1.0, 0.5, 2.0, -1.0, 0.0, 0.0]), torch.tensor([0.0, -0.4, 1.0, 0.3, 2.0, -2.0])
    drawn = mean + deviation * torch.randn(400_000, 1, generator=Generator().manual_seed(5))
    expected: Tensor = drawn.clamp_min(0).square().mean(dim=0).sqrt()
    torch.testing.assert_close(root_mean_square(deviation, mean), expected, atol=3e-3, rtol=5e-3)


def test_what_fits_and_what_is_of_another_network_stays_as_it_is() -> None:
    wide, other = a_net(WIDE), make_backbone(BackboneName.IRESNET18, dimension=8, side=16)
    for state in (wide.state_dict(), other.state_dict()):
        same = narrowed(state, wide)
        assert same.keys() == state.keys()
        assert all(torch.equal(same[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("change.1.weight", torch.zeros(3)),
        ("change.0.1.bias", torch.tensor(1.0)),
        ("change.0.1.weight", torch.zeros(2)),
    ],
)
def test_what_does_not_fit_together_is_left_as_it_is(name: str, value: Tensor) -> None:
    """So the network refuses it, as it does all that is not its own."""
    state = a_net(WIDE).state_dict() | {f"features.3.{name}": value}
    same = narrowed(state, a_net(NARROW))
    assert torch.equal(same["features.3.change.0.0.weight"], state["features.3.change.0.0.weight"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        a_net(NARROW).load_state_dict(same)


def test_the_command_begins_the_mirrored_network_with_weights_of_the_wide_one(
    small_folder: Path, tmp_path: Path
) -> None:
    """One step at a rate of nothing; its normalisations keep other averages than the first network's, which never saw means."""
    wide = make_backbone(BackboneName.COMPACT_WIDE, dimension=16)
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    place = ("--run", str(tmp_path / "run"), "--name", "small", "--output", str(tmp_path), "--samples", "8")
    net = ("--from", str(tmp_path / "wide.pt"), "--backbone", "compact-mirrored", "--dimension", "16")
    pace = ("--batch", "8", "--learning-rate", "1e-9", "--threads", "1")
    answer = CliRunner().invoke(app, ["embedder", str(small_folder), *place, *net, *pace])
    assert answer.exit_code == 0, answer.output
    mirrored = make_backbone(BackboneName.COMPACT_MIRRORED, dimension=16)
    start_from(tmp_path / "run" / "checkpoint.pt", mirrored)
    own, former = (
        mirrored.state_dict(),
        narrowed(wide.state_dict(), mirrored) if isinstance(mirrored, CompactNet) else {},
    )
    assert own["features.3.change.0.0.weight"].shape == (80, 96, 3, 3)
    assert all(torch.allclose(own[name], former[name], atol=1e-6) for name in own if name.endswith("0.weight"))
