"""The memory of one photograph serves the next one; that of a huge one goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own: the setting holds for the whole process, and for good.
PROGRAM = """
import os, sys, threading
import numpy as np
from facedex.indexer.vision.memory import keep_freed_memory

def resident_megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def photograph(megabytes):
    before = resident_megabytes()
    pixels = np.ones(megabytes * 2**20, np.uint8)
    del pixels
    print(round(resident_megabytes() - before))

keep_freed_memory()
thread = threading.Thread(target=photograph, args=(int(sys.argv[1]),))
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
@pytest.mark.parametrize(("megabytes", "least_kept", "most_kept"), [(24, 20, 26), (200, 0, 10)])
def test_the_memory_of_a_photograph_is_kept_unless_it_is_huge(megabytes: int, least_kept: int, most_kept: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(megabytes)]
    kept = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert least_kept <= kept <= most_kept
