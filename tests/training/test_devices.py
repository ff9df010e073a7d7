"""On which device networks learn, and in which precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facedex.training.backbones.backbone import BackboneName
from facedex.training.crops import STORED_SIDE, Crops
from facedex.training.devices import Precision, Workplace
from facedex.training.embedding import EmbedderLesson, EmbedderSettings


def tell_of(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("device", "capabilities", "is_mixed"),
    [
        ("cpu", {"amx_bf16": True, "avx512_bf16": True}, True),
        ("cpu", {"amx_bf16": False, "avx512_bf16": True}, False),  # which computes in it, and slowly
        ("cpu", {"neon": True}, False),
        ("cuda", {}, True),
        ("meta", {"amx_bf16": True}, False),
    ],
)
def test_precision_is_mixed_by_itself_only_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, device: str, capabilities: dict[str, bool], *, is_mixed: bool
) -> None:
    tell_of(monkeypatch, capabilities)
    assert Workplace.of(device, Precision.AUTO).is_mixed is is_mixed


def test_a_torch_that_does_not_tell_what_the_processor_can_computes_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert str(Workplace.of("cpu", Precision.AUTO)) == "cpu in 32 bits"


@pytest.mark.parametrize("has_amx", [True, False])
def test_who_asks_for_a_precision_gets_it(monkeypatch: pytest.MonkeyPatch, *, has_amx: bool) -> None:
    tell_of(monkeypatch, {"amx_bf16": has_amx})
    assert str(Workplace.of("cpu", Precision.BFLOAT16)) == "cpu in bfloat16"
    assert str(Workplace.of("cpu", Precision.FULL)) == "cpu in 32 bits"


@pytest.mark.parametrize(
    ("rounded_share", "least_cosine"), [(0.0, 0.95), (1.0, 0.8)], ids=["plain", "with the roundings of 8 bits"]
)
def test_bfloat16_learns_the_same_as_32_bits_but_for_roundings(rounded_share: float, least_cosine: float) -> None:
    full, mixed = (lesson(precision, rounded_share) for precision in (Precision.FULL, Precision.BFLOAT16))
    mixed.network.load_state_dict(full.network.state_dict())
    wanted, found = (gradient(each) for each in (full, mixed))
    assert not torch.equal(found, wanted)
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > least_cosine
    assert found.dtype is torch.float32


def lesson(precision: Precision, rounded_share: float) -> EmbedderLesson:
    pictures = np.random.default_rng(1).integers(0, 256, (16, STORED_SIDE, STORED_SIDE, 3), np.uint8)
    settings = EmbedderSettings(
        backbone=BackboneName.TINY, dimension=16, batch=16, rounded_share=rounded_share, labelled_share=1.0
    )
    workplace = Workplace.of("cpu", precision)
    crops = Crops(pictures, np.arange(16) // 4)
    return EmbedderLesson(settings, crops, workplace=workplace, teachers=None, targets=None)


def gradient(lesson: EmbedderLesson) -> torch.Tensor:
    """Of one batch's loss, all weights after one another."""
    torch.stack(list(lesson.losses(torch.Generator().manual_seed(5), share_done=0.5).values())).sum().backward()
    return torch.cat([each.grad.flatten() for each in lesson.network.parameters() if each.grad is not None])
