"""Keep the memory that a large tile needed for the next one.

On tiles of 2560² px the default network computes 1.1 to 1.4 times as many pixels a second (`python -m
benchmarks.limit`), and the process holds 150 to 220 MB more. The switch is not to call `keep_freed_memory`.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks instead of giving them back to the system.

    PyTorch on a CPU allocates each layer's output anew. Above 32 MB glibc maps such a block for the occasion, and the
    system has to clear its pages every time. With this call the process holds its largest tile's memory until it ends,
    so it is for commands, not for libraries to call on import. See mallopt(3).

    Returns:
        Whether this C library could.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One arena: what threads read and write would else break up the blocks that the network leaves behind.
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
