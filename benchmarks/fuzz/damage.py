"""Corruptions of any file, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["damage", "flip_bits", "overwrite"]


def flip_bits(path: Path, rng: np.random.Generator, n: int, low: float = 0.0, high: float = 1.0) -> None:
    """Flip `n` bits of the file's bytes between the shares `low` and `high`."""
    content = bytearray(path.read_bytes())
    first, last = int(low * len(content)), max(int(high * len(content)), int(low * len(content)) + 1)
    for _ in range(n if content else 0):
        content[int(rng.integers(first, min(last, len(content))))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def overwrite(path: Path, rng: np.random.Generator, n_bytes: int, zeros: bool = False) -> None:
    """Replace some bytes by random bytes or zeros."""
    content = bytearray(path.read_bytes())
    first = int(rng.integers(max(len(content) - n_bytes, 1)))
    n = min(n_bytes, len(content) - first)
    content[first : first + n] = bytes(n) if zeros else rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    path.write_bytes(content)


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damage a file in one of the ways in which files are damaged, and say how."""
    size = path.stat().st_size
    how = int(rng.integers(9))
    if how == 0:
        share = float(rng.random())
        path.write_bytes(path.read_bytes()[: int(share * size)])
        return f"cut to {share:.0%}"
    if how == 1:
        path.write_bytes(b"")
        return "empty"
    if how == 2:
        overwrite(path, rng, 4096)
        return "4 KiB of random bytes"
    if how == 3:
        overwrite(path, rng, int(2 ** rng.integers(4, 14)), zeros=True)
        return "a hole of zeros"
    if how == 4:
        path.write_bytes(rng.integers(0, 256, max(size, 64), dtype=np.uint8).tobytes())
        return "random bytes alone"
    if how == 5:
        path.write_bytes(path.read_bytes() + rng.integers(0, 256, 100, dtype=np.uint8).tobytes())
        return "rubbish at the end"
    if how == 6:
        path.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n")
        return "a web page in its place"
    n = int(2 ** rng.integers(8))
    high = 0.02 if how == 7 else 1.0
    flip_bits(path, rng, n, high=high)
    return f"{n} flipped bits{' at the beginning' if how == 7 else ''}"
