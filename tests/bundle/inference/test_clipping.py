"""X is log1p CP10k in every output: 0 to 9.21, clipped after every average, counted, and scored as it is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
import zarr

from bundle import expression_of, open_map, workflows
from bundle.data.manifest import read_split
from bundle.data.normalisation import MAX_LOG_CP10K, bounded
from bundle.data.panel import load_panel
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from bundle.inference.clipping import clipping_summary
from bundle.inference.uncertainty import combine
from bundle.metrics.moments import correlation, moments
from bundle.writers import predicted_units
from networks import PixNet


@pytest.fixture(scope="module")
def steep(tiny_run, phantom, tmp_path_factory) -> Path:
    """The run with a head so steep that much of what it gives is no log1p CP10k."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("steep") / "run"))
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    state["head.std"] = state["head.std"] * 40
    state["ridge.loadings"] = state["ridge.loadings"] * 20
    torch.save(state, run / "models" / "model.pt")
    return run


@pytest.fixture(scope="module")
def slide(phantom) -> str:
    return read_split(phantom, "test")[0]["image"]


def _predict(run: Path, slide: str | Path, out: Path, **settings: Any) -> ad.AnnData:
    workflows.predict(slide, out, run, {"bin_um": 55.0, "all_genes": True, **settings})
    return ad.read_h5ad(out) if out.suffix == ".h5ad" else ad.read_zarr(out)


@pytest.fixture(scope="module")
def raw(steep, slide, tmp_path_factory) -> np.ndarray:
    """What the head gives before it is clipped."""
    return np.asarray(_predict(steep, slide, tmp_path_factory.mktemp("raw") / "o.h5ad", clip=False).X)


def in_range(values: Any) -> bool:
    values = np.asarray(values)
    return bool((values >= 0).all() and (values <= np.float32(MAX_LOG_CP10K)).all())


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_tables_hold_what_the_head_gives_clipped_and_counted(steep, slide, raw, tmp_path, ending: str, caplog):
    assert raw.min() < 0
    assert raw.max() > MAX_LOG_CP10K
    adata = _predict(steep, slide, tmp_path / f"o{ending}")
    np.testing.assert_array_equal(adata.X, bounded(raw))
    np.testing.assert_array_equal(adata.obs["clipped_genes"], ((raw < 0) | (raw > MAX_LOG_CP10K)).sum(1))
    about = adata.uns["pixnet"]
    assert int(about["clipped"]["values"]) == ((raw < 0) | (raw > MAX_LOG_CP10K)).sum()
    assert float(about["clipped"]["share"]) == pytest.approx(((raw < 0) | (raw > MAX_LOG_CP10K)).mean())
    assert [w for w in about["warnings"] if "were clipped to 0..9.21" in w]
    assert about["unit_of_X"].endswith("predicted")


def test_features_give_clipped_genes(steep, slide, raw, tmp_path, monkeypatch):
    monkeypatch.setattr(predicted_units, "MAX_VALUES", 10)
    adata = _predict(steep, slide, tmp_path / "o.h5ad")
    assert adata.X is None
    found = expression_of(adata, load_panel(steep / "models" / "panel.json").genes)
    np.testing.assert_allclose(found, bounded(raw), atol=0.5)  # features are kept in half precision
    assert in_range(found)


def test_maps_and_volumes_are_in_range(steep, slide, tmp_path):
    genes = load_panel(steep / "models" / "panel.json").genes[:4]
    maps = {"features": tmp_path / "f.zarr", "genes": tmp_path / "g.zarr"}
    volume = str(tmp_path / "n.nii")
    workflows.predict(slide, None, steep, {"map": str(maps["features"])})
    workflows.predict(slide, None, steep, {"map": str(maps["genes"]), "nifti": volume, "genes": genes})
    group = zarr.open_group(str(maps["genes"]), mode="r")
    assert group.attrs["pixnet"]["clipped_values"] > 0
    levels = [np.asarray(array[:]) for _, array in sorted(group.arrays())]
    for values in (np.asarray(nib.load(volume).dataobj), *levels):
        known = values[np.isfinite(values)]
        assert in_range(known)
        assert (known == 0).any()
    pytest.importorskip("dask", reason="the extra `cohort` is not installed")
    for path in maps.values():
        assert in_range(np.nan_to_num(open_map(path).gene(genes[0]).compute()))


def test_figures_are_those_of_what_is_written(steep, phantom):
    out = workflows.evaluate(steep, name="steep")
    figures = json.loads(out.read_text())["scales"]["native"]
    (record,) = read_split(phantom, "test")
    written = ad.read_h5ad(steep / "predictions" / "steep" / f"{record['section']}.h5ad")
    assert in_range(written.X)
    (units,) = load_units(record)
    units = units.take(np.flatnonzero(np.isin(units.barcodes, written.obs_names)))
    panel = load_panel(steep / "models" / "panel.json")
    y = np.log1p(1e4 * units.counts_of(panel.genes) / units.total[:, None])
    main = panel.index(panel.main)
    m = moments(torch.as_tensor(written.X), torch.as_tensor(y))[main]
    assert figures["MSE"] == pytest.approx(float((m[:, 6] / m[:, 0]).mean()), rel=1e-4)
    assert figures["PCC@M"] == pytest.approx(float(correlation(m).nanmean()), abs=1e-5)


def test_the_mean_over_flips_and_turns_is_clipped_after(steep, slide, tmp_path):
    numbers = [0, 3]
    members = [tmp_path / f"{n}.h5ad" for n in numbers]
    settings = [{"test_time_augmentation": [n], "clip": False} for n in numbers]
    raws = [np.asarray(_predict(steep, slide, p, **more).X) for p, more in zip(members, settings, strict=True)]
    together = _predict(steep, slide, tmp_path / "both.h5ad", test_time_augmentation=numbers)
    combined = combine(members)
    np.testing.assert_allclose(combined.X, bounded(np.mean(raws, 0)), atol=1e-3)
    np.testing.assert_allclose(combined.X, together.X, atol=1e-2)
    assert in_range(combined.X)
    np.testing.assert_allclose(combined.layers["standard_error"], np.std(raws, 0, ddof=1), rtol=1e-3, atol=1e-3)
    assert combined.uns["pixnet"]["unit_of_X"].endswith("predicted")
    assert (combined.obs["clipped_genes"] > 0).any()


def test_black_padding_gives_no_impossible_value(tiny_run, slide, write_slide, tmp_path):
    pixels = tifffile.imread(slide)
    pixels[:, : pixels.shape[1] // 3] = 0
    adata = _predict(tiny_run, write_slide(tmp_path / "padded.tif", pixels, 1.0, tile_px=256), tmp_path / "o.h5ad")
    assert in_range(adata.X)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_written(tiny_run, slide, tmp_path, monkeypatch, value: float):
    monkeypatch.setattr(PixNet, "decode", lambda self, image: self.decoder(self.encoder(image)) * value)
    with pytest.raises(InputError, match="not finite"):
        _predict(tiny_run, slide, tmp_path / "o.h5ad")
    with pytest.raises(InputError, match="not finite"):
        workflows.evaluate(tiny_run, name="broken")
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert not (tiny_run / "evaluation" / "broken.json").exists()


def test_a_few_clipped_values_need_no_warning():
    assert clipping_summary(9, 1000)[1] is None
    assert "6%" in str(clipping_summary(6, 100)[1])
    assert clipping_summary(0, 0) == ({"values": 0, "share": 0.0}, None)
