"""Names of units as a chunk of Zarr's `vlen-utf8`, from bytes of one length: no string object for each name.

Zarr makes a Python string of every name, which takes ten times as long: 0.2 µs a unit, of millions of bins
(`python -m benchmarks.flat`).
"""

from __future__ import annotations

import numpy as np

__all__ = ["names_chunk"]


def names_chunk(names: np.ndarray, length: int) -> bytes:
    """The bytes that Zarr would write for a chunk of these names without compression.

    A chunk is the number of its strings, then the length and the bytes of each
    (https://github.com/zarr-developers/zarr-extensions/tree/main/codecs/vlen-utf8).

    Args:
        names: bytes of one length, (n,), n at most `length`.
        length: strings of a chunk; empty ones fill the last chunk up.
    """
    text = np.empty(len(names), dtype=[("length", "<u4"), ("text", names.dtype)])
    text["length"], text["text"] = names.dtype.itemsize, names
    return np.uint32(length).astype("<u4").tobytes() + text.tobytes() + bytes(4 * (length - len(names)))
