"""What was freed goes back to the system, in a process of its own: what other tests freed would blur it."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
import numpy as np
from pathlib import Path
from facedex.indexer.search.freed_memory import return_freed_memory


def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


np.ones(30 * 2**20, np.uint8)  # freed at once: from now on the C library keeps what is as large as that
kept = [np.ones(2**20, np.uint8) for _ in range(100)]
last = np.ones(2**20, np.uint8)  # above them all
before = resident_megabytes()
del kept
return_freed_memory()
print(before - resident_megabytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it")
def test_what_was_freed_goes_back_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(ran.stdout) > 90
