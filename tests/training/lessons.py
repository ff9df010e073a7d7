"""What lessons of all kinds have to do alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from facedex.training.loop import Lesson


def check_bfloat16(full: Lesson, mixed: Lesson) -> None:
    """With the same weights, a batch loses in bfloat16 what it loses in 32 bits, but for roundings, of which there are some."""
    mixed.network.load_state_dict(full.network.state_dict())
    wanted, found = _losses_of(full), _losses_of(mixed)
    assert found == pytest.approx(wanted, rel=0.05)
    assert found != wanted


def _losses_of(lesson: Lesson) -> dict[str, float]:
    parts = lesson.losses(torch.Generator().manual_seed(0), share_done=0.0)
    return {name: part.item() for name, part in parts.items()}
