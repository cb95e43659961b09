from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from bundle.crops import CropDataset, SlideDataset, collate_units
from bundle.errors import InputError
from bundle.expression import log1p_cp10k
from bundle.manifest import read_split
from bundle.panel import fit_panel, load_units
from transforms import RandHEStaind, RasterizeUnitsd, ReadRegiond, SlideReader


@pytest.fixture(scope="module")
def records(phantom):
    return read_split(phantom, "training")


def _dataset(records, sizes=None, seed: int = 0, crop_px: int = 192) -> CropDataset:
    reader = SlideReader()
    transform = Compose(
        [
            ReadRegiond("image", 1.0, reader),
            RasterizeUnitsd("label", vector_keys=("target", "total", "size_factor")),
            RandHEStaind("image", prob=1.0),
        ]
    )
    panel = fit_panel(records, unit_sizes_um=sizes, min_total=20)
    return CropDataset(
        records, panel, reader, transform, 1.0, crop_px, crops_per_slide=3, unit_sizes_um=sizes, seed=seed
    )


def test_a_sample_keeps_the_contract(records):
    dataset = _dataset(records, sizes=[55, 16])
    sample = dataset[0]
    n = len(sample["total"])
    assert n > 0
    assert sample["image"].shape == (3, 192, 192)
    assert sample["image"].dtype == torch.float32
    assert sample["label"].shape == (2, 192, 192)
    assert sample["target"].shape == (n, len(dataset.panel))
    for layer in range(2):
        index = sample["unit_index"][sample["unit_layer"] == layer]
        assert set(torch.as_tensor(sample["label"][layer]).unique().tolist()) - {0} == set(index.tolist())
    assert {round(float(a), 3) for a in sample["area_um2"]} == {round(np.pi / 4 * 55**2, 3), 256.0}


def test_targets_are_those_of_the_units_in_the_mask(records):
    dataset = _dataset(records)
    (units,) = load_units(records[0])
    y = log1p_cp10k(units.counts_of(dataset.panel.genes), units.total)
    sample = dataset[0]
    for target, total in zip(sample["target"], sample["total"], strict=True):
        same = np.isclose(units.total, float(total)) & np.isclose(y, target.numpy(), atol=1e-5).all(1)
        assert same.any()


def test_everything_random_follows_from_seed_epoch_and_item(records):
    a, b = _dataset(records), _dataset(records)
    first = a[1]["image"].clone()
    a[2], a[0]  # what was drawn before does not matter
    torch.testing.assert_close(a[1]["image"], first)
    torch.testing.assert_close(b[1]["image"], first)
    a.set_epoch(1)
    assert not torch.equal(a[1]["image"], first)
    assert not torch.equal(_dataset(records, seed=1)[1]["image"], first)


def test_a_batch_says_whose_its_units_are(records):
    dataset = _dataset(records, sizes=[55, 16])
    samples = [dataset[i] for i in range(3)]
    batch = collate_units(samples)
    counts = [len(s["total"]) for s in samples]
    assert batch["image"].shape == (3, 3, 192, 192)
    assert torch.bincount(batch["unit_batch"]).tolist() == counts
    assert len(batch["target"]) == len(batch["unit_group"]) == sum(counts)
    assert len(batch["unit_group"].unique()) == 2 * len(records)


def test_units_outside_the_slide_are_told_in_a_sentence(records, tmp_path):
    adata = ad.read_h5ad(records[0]["label"][0])
    adata.obsm["spatial"] = adata.obsm["spatial"] * 10
    adata.write_h5ad(tmp_path / "far.h5ad")
    bad = [{**records[0], "label": [str(tmp_path / "far.h5ad")]}]
    with pytest.raises(InputError, match="lie outside"):
        _dataset(bad)


def test_a_slide_to_evaluate_holds_its_eligible_units(records):
    panel = fit_panel(records, min_total=20)
    item = SlideDataset(records, SlideReader(), panel)[0]
    (units,) = load_units(records[0])
    assert len(item["units"]) + item["filtered_units"] == len(units)
    assert (item["units"].total >= 20).all()
    small = SlideDataset(records, SlideReader(), panel, 16)[0]  # below 55 µm an empty unit is a measurement
    assert len(small["units"]) == load_units(records[0], [16])[0].in_tissue.sum()
    twice = [{**records[0], "label": records[0]["label"] * 2}]
    with pytest.raises(InputError, match="list one a size"):
        SlideDataset(twice, SlideReader(), panel)[0]
