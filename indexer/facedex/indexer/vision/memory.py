"""How the C library keeps the memory of pictures between photographs."""

import ctypes
import sys
from typing import Any, Final

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT_BYTES: Final = 32 * 2**20
"""The largest that glibc takes for a threshold. A picture of 10 megapixels is kept, larger ones go back at once."""
_KEPT_BYTES_PER_ARENA: Final = 64 * 2**20
"""As much as an arena ever is: what it has it keeps."""


def keep_freed_memory() -> None:
    """Let the process use the memory of one photograph for the next one; nothing is done where that cannot be said.

    By default glibc gives a picture's memory back to the system when it is freed, unless it is the main thread's, and the
    system clears every page again for the next picture: a sixth of the time of a photograph of one megapixel.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_PER_ARENA)
