"""The picture of a slide, its measured units and the dense map."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.report import write_picture


def _bins(folder: Path, gene: str, value: float) -> Path:
    """Bins over the right half of the slide's spots, all of one value."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(40, 80), np.arange(80)))
    places = np.column_stack([x, y]) * 40.0
    adata = ad.AnnData(np.full((len(places), 1), value))
    adata.var_names = [gene]
    adata.obsm["spatial"] = places
    adata.uns["unit"] = {"shape": "square", "size_um": 20.0}
    adata.write_h5ad(folder / "bins.h5ad")
    return folder / "bins.h5ad"


def test_bins_are_drawn_where_they_lie_beside_the_slide_and_its_spots(plain_run, tmp_path):
    path = write_picture(plain_run, _bins(tmp_path, "G1", 100.0), tmp_path / "p.jpg", "G1", "ERBB2")
    image = np.asarray(Image.open(path)).astype(int)
    yellow = (image[..., 0] > 200) & (image[..., 1] > 200) & (image[..., 2] < 90)
    third = image.shape[1] // 3
    share = [yellow[:, n * third : (n + 1) * third].mean() for n in range(3)]
    assert share[0] < 0.02  # noise of the made-up slide
    assert share[2] > 0.15
    columns = np.flatnonzero(yellow[:, 2 * third :].mean(0) > 0.3)
    assert columns.min() > 0.4 * third  # the right half
    assert path.stat().st_size < 300_000


def test_a_gene_or_units_that_the_bins_lack_are_refused(plain_run, tmp_path):
    bins = _bins(tmp_path, "G1", 1.0)
    with pytest.raises(InputError, match="does not hold square bins with G2"):
        write_picture(plain_run, bins, tmp_path / "p.jpg", "G2")
    assert not (tmp_path / "p.jpg").exists()
