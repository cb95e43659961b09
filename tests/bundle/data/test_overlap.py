"""Units that overlap: each is predicted and scored as if it were alone, and trained on whole."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from bundle import workflows
from bundle.data.build_units import build_units
from bundle.data.collate import collate_units
from bundle.data.crop_dataset import CropDataset
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split, write_manifest
from networks.losses import ExpressionLoss
from networks.pixnet import UnitExpression
from transforms import RasterizeUnitsd, ReadRegiond, SlideReader

GENES = [f"GENE{i:03d}" for i in range(30)]


def units_at(centers: np.ndarray, shape: str, size_um: float, path: Path, genes: list[str] = GENES) -> Path:
    counts = np.random.default_rng(0).poisson(20, (len(centers), len(genes)))
    names = [f"u{i}" for i in range(len(centers))]
    adata = build_units(counts, genes, names, centers, shape=shape, size_um=size_um, mpp=1.0, section="P3")
    adata.write_h5ad(path)
    return path


def grid(pitch: float, low: float = 90, high: float = 510) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(low, high, pitch)] * 2), -1).reshape(-1, 2)


#: Centres in px of 1 µm, shape and size.
OVERLAPPING: dict[str, tuple[np.ndarray, str, float]] = {
    "spots of 55 µm at 50 µm": (grid(50), "circle", 55.0),
    "bins at rounded places": (np.round(grid(15.6)), "square", 16.0),
    "bins that half overlap": (grid(30), "square", 40.0),
}


def ring(center: np.ndarray, radius: float) -> list[list[float]]:
    angle = np.linspace(0, 2 * np.pi, 25)
    return (center + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).tolist()


def cells_at(centers: np.ndarray, path: Path) -> Path:
    """Cells as outlines: pairs of which one lies within the other, and neighbours that overlap."""
    features = [
        {
            "type": "Feature",
            "id": f"c{i}",
            "geometry": {"type": "Polygon", "coordinates": [ring(c, r)]},
            "properties": {},
        }
        for i, (c, r) in enumerate(zip(centers, [12.0, 40.0] * len(centers), strict=False))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def slide(phantom) -> str:
    return read_split(phantom, "test")[0]["image"]


def predict(run: Path, slide: str, out: Path, **settings: Any) -> ad.AnnData:
    workflows.predict(slide, out, run, {"all_genes": True, **settings})
    return ad.read_h5ad(out)


def check_alone(together: ad.AnnData, alone: ad.AnnData) -> None:
    np.testing.assert_allclose(together[alone.obs_names].X, alone.X, atol=1e-5)
    assert np.ptp(together.X, axis=0).max() > 1e-2


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_a_unit_is_predicted_as_if_it_were_alone(tiny_run, slide, tmp_path, kind: str):
    centers, shape, size_um = OVERLAPPING[kind]
    together = predict(
        tiny_run, slide, tmp_path / "o.h5ad", units=str(units_at(centers, shape, size_um, tmp_path / "u.h5ad"))
    )
    measured = ad.read_h5ad(tmp_path / "u.h5ad")
    apart = np.arange(0, len(centers), len(centers) // 5 + 1)
    measured[apart].write_h5ad(tmp_path / "some.h5ad")
    check_alone(together, predict(tiny_run, slide, tmp_path / "a.h5ad", units=str(tmp_path / "some.h5ad")))


def test_a_cell_is_predicted_as_if_it_were_alone(tiny_run, slide, tmp_path):
    centers = np.repeat(grid(60, 120, 480), 2, axis=0)
    together = predict(tiny_run, slide, tmp_path / "o.h5ad", units=str(cells_at(centers, tmp_path / "c.geojson")))
    content = json.loads((tmp_path / "c.geojson").read_text())
    content["features"] = content["features"][::7][::2] + content["features"][1:2]
    (tmp_path / "some.geojson").write_text(json.dumps(content))
    check_alone(together, predict(tiny_run, slide, tmp_path / "a.h5ad", units=str(tmp_path / "some.geojson")))


def test_a_lattice_of_spots_that_overlap_is_what_the_same_spots_given_are(tiny_run, slide, tmp_path):
    lattice = predict(tiny_run, slide, tmp_path / "o.h5ad", spot_um=55.0, pitch_um=50.0)
    path = units_at(np.asarray(lattice.obsm["spatial"]), "circle", 55.0, tmp_path / "u.h5ad")
    given = predict(tiny_run, slide, tmp_path / "a.h5ad", units=str(path))
    np.testing.assert_allclose(lattice.X, given.X, atol=1e-3)


@pytest.fixture
def dataset(phantom, tmp_path) -> Path:
    """The phantom with spots of 55 µm, 50 µm apart."""
    folder = Path(shutil.copytree(phantom, tmp_path / "dataset"))
    manifest = json.loads((folder / "dataset.json").read_text())
    genes = [str(gene) for gene in ad.read_h5ad(folder / "units" / "P3_spot55.h5ad").var_names]
    for split in ("training", "validation", "test"):
        for record in manifest[split]:
            path = f"units/{Path(record['image']).stem}_dense.h5ad"
            units_at(grid(50), "circle", 55.0, folder / path, genes)
            record["label"] = path
    write_manifest(folder, manifest)
    return folder


def test_training_and_scoring_take_overlapping_units(dataset, tiny, tmp_path):
    workflows.train(dataset, tmp_path / "run", settings=tiny)
    workflows.evaluate(tmp_path / "run")
    figures = json.loads((tmp_path / "run" / "evaluation" / "test.json").read_text())["scales"]["native"]
    assert figures["units"] == len(grid(50))
    assert math.isfinite(figures["PCC@M"])


def test_crops_hold_every_unit_whole_and_as_one_size(dataset):
    records = read_split(dataset, "training")
    panel = fit_panel(records, min_total=20)
    read = ReadRegiond("image", mpp=2.0, reader=SlideReader())
    draw = RasterizeUnitsd(vector_keys=["target", "total", "size_factor", "normalised"])
    crops = CropDataset(records, panel, SlideReader(), lambda sample: draw(read(sample)), 2.0, 128, 4, None, 0)
    samples = [crops[i] for i in range(4)]
    batch = collate_units(samples)
    assert batch["label"].shape[1] > 1
    whole = math.pi / 4 * 55**2 / 4
    for sample in samples:
        for layer, index in zip(sample["unit_layer"].tolist(), sample["unit_index"].tolist(), strict=True):
            assert int((sample["label"][layer] == index).sum()) == pytest.approx(whole, rel=0.05)
        assert sample["unit_size"].eq(0).all()
    groups = set(batch["unit_group"].tolist())
    assert len(groups) == len(records)  # not one for each mask
    U, G = batch["target"].shape
    loss = ExpressionLoss()(UnitExpression(torch.randn(U, G), None), batch)
    assert torch.isfinite(loss)
