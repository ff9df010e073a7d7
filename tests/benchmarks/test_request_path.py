"""Each benchmark of the request path runs, in small, and says what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT, *(ROOT / name for name in ("proto", "indexer", "server", "client"))]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, ROOTS))}

SMALL = {
    "identify": ("--people", "2", "--templates", "20", "--rounds", "1", "--seconds", "0.2"),
    "embedding": ("--rounds", "1", "--seconds", "0.1"),
    "changes": ("--sizes", "50,100", "--changes", "5"),
    "restart": ("--templates", "20000", "--rounds", "1"),
    "crowd": ("--templates", "50", "--callers", "1,2", "--rounds", "1", "--seconds", "0.2"),
}


def measured(name: str, path: Path) -> dict[str, Any]:
    """What a benchmark writes of a run in small."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name], "--json", str(path)]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, cwd=ROOT)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def says_that_it_is_right(name: str, document: dict[str, Any]) -> bool:
    if name == "identify":
        return bool(document["photographs"]["identified"] == 2)
    if name == "changes":
        return all(row["not_found"] + row["still_found"] == 0 for row in document["rows"])
    return all(bar["measured"] >= 0 for bar in document["bars"])


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_states_the_machine_and_what_was_measured(name: str, tmp_path: Path) -> None:
    document = measured(name, tmp_path / "build" / "figures.json")
    assert document["machine"]["cores"] >= 1
    assert document["rows"]
    assert all(
        value > 0 for row in document["rows"] for key, value in row.items() if key.endswith(("_ms", "per_second"))
    )
    assert says_that_it_is_right(name, document)
