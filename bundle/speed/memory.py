"""Keep the memory that a large tile needed for the next one."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks instead of giving them back to the system; whether it could.

    PyTorch on a CPU asks for each layer's output anew. Above 32 MB glibc maps such a block for the occasion, and the
    system has to clear its pages every time: on tiles of 2560² px that takes longer than the network's arithmetic
    (`python -m benchmarks.limit`). The process then holds its largest tile's memory until it ends, so this is for
    commands, not for libraries to call on import. See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One arena: what threads read and write would else break up the blocks that the network leaves behind.
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
