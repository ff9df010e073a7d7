"""A wider network begins as what a narrower one has become, and its copied channels go ways of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.networks import trained
from torch import Generator, Tensor
from torch.nn.functional import cosine_similarity
from typer.testing import CliRunner

from facedex.training.backbones.backbone import BackboneName, make_backbone
from facedex.training.backbones.compact import CompactNet, CompactShape
from facedex.training.backbones.widening import widened
from facedex.training.cli import app
from facedex.training.errors import CheckpointUnusable
from facedex.training.loop import start_from

NARROW = (4, 6, 8)
CROPS = torch.rand(3, 3, 32, 32, generator=Generator().manual_seed(2))


def a_net(*channels: int, blocks: tuple[int, int, int] = (1, 2, 2), hidden: int = 8, seed: int = 1) -> CompactNet:
    first, second, third = channels
    return trained(CompactShape((first, second, third), blocks, hidden), seed=seed)


def wider(*channels: int, noise: float) -> CompactNet:
    net = a_net(*channels, seed=3)
    net.load_state_dict(widened(a_net(*NARROW).state_dict(), net, Generator().manual_seed(4), noise=noise))
    return net


@pytest.mark.parametrize("channels", [(4, 6, 8), (4, 9, 12), (5, 6, 8), (4, 6, 31), (13, 19, 23)])
def test_without_noise_it_makes_of_each_crop_what_the_narrower_one_made(channels: tuple[int, int, int]) -> None:
    vectors = a_net(*NARROW)(CROPS)
    assert not torch.allclose(a_net(*channels, seed=3)(CROPS), vectors, atol=1e-2)
    torch.testing.assert_close(wider(*channels, noise=0)(CROPS), vectors, atol=1e-5, rtol=1e-4)


def test_with_the_usual_noise_almost_the_same() -> None:
    cosines = cosine_similarity(wider(4, 9, 12, noise=0.02)(CROPS), a_net(*NARROW)(CROPS)).detach()
    assert 0.99 < float(cosines.min()) < 0.9999999


def test_what_did_not_grow_keeps_its_weights() -> None:
    before, after = a_net(*NARROW).state_dict(), wider(4, 9, 12, noise=0.02).state_dict()
    same = {
        name for name in before if before[name].shape == after[name].shape and torch.equal(before[name], after[name])
    }
    assert {"features.0.0.weight", "features.1.change.1.weight", "head.4.weight"} <= same
    assert "head.0.0.weight" not in same


def distances_of_copies(net: CompactNet) -> Tensor:
    """Between each channel of the second stage and the one most like it, as a share of its length."""
    rows = net.state_dict()["features.2.0.weight"].flatten(1)
    between = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    distances: Tensor = between.amin(dim=1) / rows.norm(dim=1)
    return distances


def test_copies_learn_different_things_thanks_to_the_noise() -> None:
    def learnt(noise: float) -> float:
        net = wider(4, 9, 12, noise=noise).train()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(4):
            optimiser.zero_grad()
            (net(CROPS) - 1).square().mean().backward()
            optimiser.step()
        return float(distances_of_copies(net).min())

    assert learnt(noise=0) < 1e-4 < learnt(noise=0.02)


def test_the_command_widens_what_it_begins_with(small_folder: Path, tmp_path: Path) -> None:
    """One step at a rate of nothing leaves it what it is, but for the averages that its normalisations keep."""
    narrow = make_backbone(BackboneName.COMPACT, dimension=16).eval()
    torch.save(narrow.state_dict(), tmp_path / "narrow.pt")
    place = (
        "--run",
        str(tmp_path / "run"),
        "--name",
        "small",
        "--output",
        str(tmp_path),
        "--samples",
        "8",
        "--batch",
        "8",
    )
    net = ("--from", str(tmp_path / "narrow.pt"), "--backbone", "compact-wide", "--dimension", "16")
    answer = CliRunner().invoke(
        app, ["embedder", str(small_folder), *place, *net, "--learning-rate", "1e-9", "--threads", "1"]
    )
    assert answer.exit_code == 0, answer.output
    wide = make_backbone(BackboneName.COMPACT_WIDE, dimension=16).eval()
    start_from(tmp_path / "run" / "checkpoint.pt", wide)
    crops = torch.rand(2, 3, 112, 112, generator=Generator().manual_seed(5))
    assert float(cosine_similarity(wide(crops), narrow(crops)).detach().min()) > 0.8


@pytest.mark.parametrize(
    "other",
    [
        a_net(4, 6, 12),
        a_net(4, 6, 8, blocks=(1, 2, 3)),
        a_net(4, 6, 8, hidden=6),
        make_backbone(BackboneName.MOBILEFACENET, dimension=16),
    ],
    ids=["wider in a stage", "more blocks", "another head", "another kind"],
)
def test_a_net_that_is_no_narrower_one_is_refused(other: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(other.state_dict(), tmp_path / "other.pt")
    net = a_net(4, 9, 10)
    with pytest.raises(CheckpointUnusable, match="another network"):
        start_from(tmp_path / "other.pt", net, fitted=lambda state: widened(state, net, Generator()))


@pytest.mark.parametrize("content", [[1, 2], {3: torch.ones(1)}, {"features.x": 1}, {"features.x": torch.ones(1)}, {}])
def test_what_holds_no_weights_of_such_a_net_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    net = a_net(*NARROW)
    with pytest.raises(CheckpointUnusable, match="another network"):
        start_from(tmp_path / "other.pt", net, fitted=lambda state: widened(state, net, Generator()))
