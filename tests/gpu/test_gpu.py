"""What only a GPU can show. Where the machine has one, it must be usable: a broken driver is a failure, not a reason to skip."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.indexer.search.oracle import unit_vectors

from facedex.indexer.devices import DeviceChoice, Devices, TorchHardware, chosen_devices
from facedex.indexer.errors import DeviceUnusable
from facedex.indexer.search.exact import ExactIndex
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.torch_memory import TorchMemory
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.server.doctor import diagnose

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def gpus_of_the_machine() -> str:
    """What the driver lists, whatever torch thinks of it; empty where there is no driver, or it lists nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    return listed.stdout.strip() if listed.returncode == 0 else ""


@pytest.fixture(scope="module")
def devices() -> Devices:
    try:
        return chosen_devices(DeviceChoice.CUDA, TorchHardware())
    except DeviceUnusable as problem:
        if gpus_of_the_machine():
            pytest.fail(f"there is a GPU, and {problem}")
        pytest.skip(problem.problem)


def test_the_doctor_finds_nothing_wrong(devices: Devices, tmp_path: Path) -> None:
    assert devices.gpus
    found = diagnose(
        DeviceChoice.CUDA, data=tmp_path, detector=BUILTIN_DETECTOR, embedder=BUILTIN_EMBEDDER, hardware=TorchHardware()
    )
    assert found.problems == ()


def test_a_search_finds_whom_the_exact_index_finds(devices: Devices) -> None:
    rows = unit_vectors(100_000, seed=1, dimension=512)
    numbers = list(range(1, 100_001))
    exact, fast = ExactIndex(512), FastIndex(512, memory=TorchMemory(devices.names[0]))
    for index in (exact, fast):
        index.add(numbers, numbers, rows)
        index.erase([7, 99])
    noise = unit_vectors(200, seed=2, dimension=512)
    probes = rows[:200] + 0.8 * noise
    probes = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    assert fast.search(probes, limit=5, min_score=0.1) == exact.search(probes, limit=5, min_score=0.1)
