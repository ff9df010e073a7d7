"""Muon against its definition and against torch's own, and what learns by it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from facedex.training.backbones.compact import CompactNet
from facedex.training.optimisers import Muon, OptimiserName, optimisers_of, orthogonalised

SHAPES = [(64, 128), (128, 64), (32, 32)]


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_orthogonalised_matrix_keeps_its_directions_and_loses_their_lengths(shape: tuple[int, int]) -> None:
    left, lengths, right = torch.linalg.svd(seeded(*shape), full_matrices=False)
    lengths = lengths.clamp_min(0.1 * float(lengths.max()))
    changed = left.T @ orthogonalised(left * lengths @ right) @ right.T
    torch.testing.assert_close(changed, torch.diag(changed.diag()), atol=1e-4, rtol=0)
    assert 0.65 < float(changed.diag().min()) <= float(changed.diag().max()) < 1.25


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    """But for the 16 bits that torch orthogonalises in."""
    theirs_of = getattr(torch.optim, "Muon", None)
    if theirs_of is None:
        pytest.skip("this torch has no Muon")
    start = seeded(*shape)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    my_steps = Muon([{"params": [mine], "weight_decay": 0.1}], lr=0.01)
    their_steps = theirs_of([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        mine.grad, theirs.grad = seeded(*shape, seed=step + 1), seeded(*shape, seed=step + 1)
        my_steps.step()
        their_steps.step()
    moved = float((theirs.detach() - start).norm())
    assert float((mine.detach() - theirs.detach()).norm()) < 0.03 * moved


def test_a_kernel_moves_as_the_matrix_that_it_is() -> None:
    kernel, matrix = nn.Parameter(seeded(32, 8, 3, 3)), nn.Parameter(seeded(32, 72))
    matrix.data.copy_(kernel.data.flatten(1))
    kernel.grad, matrix.grad = seeded(32, 8, 3, 3, seed=1), seeded(32, 8, 3, 3, seed=1).flatten(1)
    Muon([{"params": [kernel, matrix]}], lr=0.1).step()
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach())


def test_a_weight_without_gradient_stays() -> None:
    weight = nn.Parameter(seeded(32, 32))
    Muon([{"params": [weight]}], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), seeded(32, 32))


@pytest.mark.parametrize("name", list(OptimiserName))
def test_every_weight_learns_by_one_optimiser_and_only_weights_decay(name: OptimiserName) -> None:
    network = CompactNet(256)
    groups = [each for every in optimisers_of(network, name, decay=0.02) for each in every.param_groups]
    learning = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(learning) == sorted(id(each) for each in network.parameters())
    for group in groups:
        assert {each.ndim > 1 for each in group["params"]} == {group["weight_decay"] > 0}


def test_muon_takes_convolutions_and_leaves_kernels_of_one_channel_to_adamw() -> None:
    network = CompactNet(256)
    _adam, muon = optimisers_of(network, OptimiserName.MUON, decay=0.02)
    taken = {id(each) for each in muon.param_groups[0]["params"]}
    left = {name for name, each in network.named_parameters() if each.ndim > 1 and id(each) not in taken}
    assert taken
    assert all(network.get_parameter(name).shape[1] == 1 for name in left), left


def test_where_nothing_is_a_matrix_adamw_learns_all() -> None:
    assert len(optimisers_of(nn.Linear(4, 4), OptimiserName.MUON, decay=0.0)) == 1
