"""Exact resampling on a slide-global grid: sums do not depend on how a region is cut."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

__all__ = ["resampled", "triangle_weights"]

_BAND = 64  # rows or columns resampled by one product


def triangle_weights(first: int, count: int, scale: float) -> tuple[sp.csr_matrix, int, int]:
    """Weights of the source pixels for output pixels first..first+count: CSR (count, n), first source pixel, n."""
    center = (first + np.arange(count) + 0.5) * scale
    support = max(scale, 1.0)
    start = np.floor(center - support).astype(np.int64)
    index = start[:, None] + np.arange(math.ceil(2 * support) + 1)
    weight = np.clip(1 - np.abs(index + 0.5 - center[:, None]) / support, 0, None)
    weight = np.rint(weight / weight.sum(axis=1, keepdims=True) * 2**14)
    weight[np.arange(count), weight.argmax(axis=1)] += 2**14 - weight.sum(axis=1)
    first_px, n_px = int(index[0, 0]), int(index[-1, -1] - index[0, 0] + 1)
    indptr = np.arange(0, weight.size + 1, weight.shape[1])
    data = (weight / 2**14).astype(np.float32).ravel()
    return sp.csr_matrix((data, (index - first_px).ravel(), indptr), shape=(count, n_px)), first_px, n_px


def resampled(source: np.ndarray, rows: sp.csr_matrix, columns: sp.csr_matrix) -> np.ndarray:
    """Apply weights along both axes: uint8 (h, w, 3) -> uint8 (rows, columns, 3).

    Few source pixels weigh in a band of outputs, so a small dense product, which stays in the cache, is quicker than a
    sparse one unless pixels shrink much. Values in between are whole again, or sums would not be exact.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(source)).flatten(1)
    out = torch.empty((rows.shape[0], columns.shape[0], 3), dtype=torch.uint8, device="cpu")
    exact = _exact_dtype()
    across = list(_bands(columns, exact))
    with torch.autocast("cpu", enabled=False):
        for to, of, weights in _bands(rows, exact):
            tall = torch.mm(pixels[of].to(exact).T, weights.T).round_()  # (w * 3, band): a column's values lie together
            tall = tall.unflatten(0, (-1, 3)).flatten(1)
            wide = torch.empty((columns.shape[0], tall.shape[1]), dtype=exact, device="cpu")
            for right, left, shares in across:
                torch.mm(shares, tall[left], out=wide[right])
            out[to] = wide.round_().to(torch.uint8).unflatten(1, (3, -1)).permute(2, 0, 1)
    return out.numpy()


def _exact_dtype() -> torch.dtype:
    """float32, whose products are exact here, unless torch is set to multiply it in fewer bits."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set for one backend alone
        precision = "unknown"
    return torch.float32 if precision == "highest" else torch.float64


def _bands(weights: sp.csr_matrix, dtype: torch.dtype) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Bands of outputs: which they are, which sources weigh in them, and the dense weights between the two."""
    for first in range(0, weights.shape[0], _BAND):
        band = weights[first : first + _BAND]
        of = slice(int(band.indices.min()), int(band.indices.max()) + 1)
        yield slice(first, first + band.shape[0]), of, torch.from_numpy(band[:, of].toarray()).to(dtype)
