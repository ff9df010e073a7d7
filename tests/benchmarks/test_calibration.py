"""The benchmark of calibration runs, in small, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.test_request_path import ENVIRONMENT, ROOT


def test_the_benchmark_of_calibration_compares_time_and_memory(tmp_path: Path) -> None:
    """One calibration against as many searches as there are people, and what is allocated against all cosines."""
    figures = tmp_path / "figures.json"
    words = ("--people", "300", "--searches", "20", "--json", str(figures))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.calibration", *words],
        check=True,
        capture_output=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    document = json.loads(figures.read_text())
    (row,) = document["rows"]
    assert row["all_cosines_mib"] == 4 * 300**2 / 2**20
    assert min(row["calibration_seconds"], row["searches_seconds"], row["peak_mib"]) > 0
    assert [bar["measured"] for bar in document["bars"]] == [
        row["calibration_seconds"] / row["searches_seconds"],
        row["peak_mib"] / row["all_cosines_mib"],
    ]
