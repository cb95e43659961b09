from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from bundle.data.build_units import build_units

GENES = [f"G{i}" for i in range(8)]
MPP = 0.5
PITCH_UM = 100.0


def lattice_px(side: int) -> np.ndarray:
    return (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) * PITCH_UM / MPP


@pytest.fixture
def write_truth(tmp_path: Path) -> Callable[..., Path]:
    """Counts of units on a lattice; the first two units hold too few to be scored, the last gene none at all."""

    def write(name: str = "S1", seed: int = 0, side: int = 13, mpp: float | None = MPP) -> Path:
        rng = np.random.default_rng(seed)
        n = side * side
        depth = rng.uniform(0.3, 3, (n, 1))
        counts = rng.poisson(depth * rng.gamma(2, 100, (n, len(GENES)))).astype(np.float32)
        counts[:, -1] = 0
        counts[:2] = counts[:2] > 0
        names = [f"{name}x{i}" for i in range(n)]
        units = build_units(counts, GENES, names, lattice_px(side), shape="circle", size_um=60.0, mpp=MPP, section=name)
        if mpp is None:
            del units.uns["spatial"]
        path = tmp_path / f"{name}.h5ad"
        units.write_h5ad(path)
        return path

    return write


@pytest.fixture
def write_pred(tmp_path: Path) -> Callable[..., Path]:
    """A noisy copy of the counts, in log1p CP10k, as a tool would leave it: no more than X, names and positions."""

    def write(
        truth: Path, seed: int = 1, noise: float = 0.5, edit: Callable[[ad.AnnData], object] | None = None
    ) -> Path:
        rng = np.random.default_rng(seed)
        measured = ad.read_h5ad(truth)
        counts = measured.X.toarray()
        cp10k = 1e4 * (counts + 1) / (counts + 1).sum(1, keepdims=True) * rng.lognormal(0, noise, counts.shape)
        x = np.log1p(np.minimum(cp10k, 9000)).astype(np.float32)
        pred = ad.AnnData(x, obs=measured.obs[[]], var=measured.var[[]], obsm={"spatial": measured.obsm["spatial"]})
        if edit is not None:
            edit(pred)
        path = tmp_path / f"pred_{truth.stem}_{seed}.h5ad"
        pred.write_h5ad(path)
        return path

    return write
