"""One thread for torch: tests run beside each other, and the networks are too small to share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small_folder(people: Path, tmp_path: Path) -> Path:
    """Four people with up to three photographs each, and one file that is no photograph."""
    folder = tmp_path / "people"
    chosen = [each for each in sorted(people.glob("person_*"))[:4] if each.is_dir()]
    for person in chosen:
        (folder / person.name).mkdir(parents=True)
        for photograph in sorted(person.glob("*.jpg"))[:3]:
            shutil.copy(photograph, folder / person.name)
    (folder / chosen[0].name / "corrupt.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder
