"""The benchmark of GPUs, at toy sizes on a processor: it runs, needs little, and notices wrong answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gpu
from benchmarks.gpu import Embedding, Report, Search, Templates, flops_of
from torch import nn

ROOT = Path(__file__).parent.parent.parent
TOY = ["--device", "cpu", "--models", "tiny", "--precisions", "SINGLE", "--batches", "1,2", "--sizes", "3000"]
# A machine with torch and NumPy alone: nothing else that this project installs can be imported.
BLOCKER = """
import importlib.abc, runpy, sys
BLOCKED = {"faiss", "onnx", "onnxruntime", "cv2", "grpc", "google", "rich", "typer", "sqlalchemy", "scipy", "PIL",
           "threadpoolctl", "structlog", "cryptography", "alembic", "pyarrow"}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def test_torch_and_numpy_are_enough_and_a_processor_is_called_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BLOCKER, *TOY, "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "THESE ARE NO FIGURES OF A GPU" in done.stdout
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert not report["is_gpu"]
    assert "grpc" in report["identify"]
    assert [each["batch"] for each in report["embeddings"]] == [1, 2]
    (search,) = report["searches"]
    assert search["same_ids"]
    assert search["largest_difference"] <= 1e-3


def test_without_a_gpu_none_is_pretended() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit, match="finds no GPU"):
        gpu.main(["--device", "cuda"])


def report_of(embedding: Embedding, search: Search) -> Report:
    return Report("x", True, "2", 1.0, [], [embedding], [search], "")  # noqa: FBT003


@pytest.mark.parametrize(
    ("embedding", "search", "is_right"),
    [
        ({}, {}, True),
        ({"least_cosine": 0.9989}, {}, False),
        ({"least_cosine": 0.9989, "precision": "BRAIN"}, {}, True),
        ({}, {"same_ids": False}, False),
        ({}, {"largest_difference": 2e-3}, False),
        ({}, {"same_ids": None, "largest_difference": None}, True),
    ],
)
def test_answers_that_are_not_the_processors_fail_the_run(
    embedding: dict[str, object], search: dict[str, object], *, is_right: bool
) -> None:
    vectors = Embedding("m", "HALF", 1, 1.0, 1.0, 0.5, 0.9999)
    rows = Search(1, 1.0, 1.0, 1.0, same_ids=True, largest_difference=1e-4)
    report = report_of(replace(vectors, **embedding), replace(rows, **search))  # type: ignore[arg-type]
    assert gpu._is_right(report) is is_right


def test_the_comparison_of_searches_notices_a_row_that_the_device_did_not_find() -> None:
    templates = Templates(600)
    scores, rows = gpu._exact(templates, templates.probes(gpu.TOGETHER))
    assert gpu._compared(templates, (scores, rows)) == (True, 0.0)
    wrong = rows.copy()
    wrong[0, 0] = next(each for each in range(600) if each not in rows[0])
    assert gpu._compared(templates, (scores, wrong))[0] is False


def test_templates_of_all_segments_are_unit_vectors_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SEGMENT_ROWS", 100)
    segments = list(Templates(250).segments())
    assert [len(each) for each in segments] == [100, 100, 50]
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(segments).astype(np.float32), axis=1), 1, atol=2e-3)
    assert not (segments[0] == segments[1]).all()


def test_operations_are_counted_as_they_are_done() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 56 * 56, 5)
    )
    assert flops_of(network) == 2 * (4 * 3 * 9 * 56 * 56 + 4 * 56 * 56 * 5)
