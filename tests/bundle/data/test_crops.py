from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from monai.transforms import Compose

from bundle.data.collate import collate_units
from bundle.data.crop_dataset import CropDataset
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.normalisation import log1p_cp10k
from bundle.data.slide_dataset import SlideDataset
from bundle.data.slide_units import load_units
from bundle.errors import InputError
from transforms import RandHEStaind, RasterizeUnitsd, ReadRegiond, SlideReader


@pytest.fixture(scope="module")
def records(phantom):
    return read_split(phantom, "training")


def _dataset(records, sizes=None, seed: int = 0, crop_px: int = 192, **more) -> CropDataset:
    reader = SlideReader()
    transform = Compose(
        [
            ReadRegiond("image", 1.0, reader),
            RasterizeUnitsd("label", vector_keys=("target", "total", "size_factor", "normalised")),
            RandHEStaind("image", prob=1.0),
        ]
    )
    panel = fit_panel(records, unit_sizes_um=sizes, min_total=20)
    return CropDataset(
        records, panel, reader, transform, 1.0, crop_px, crops_per_slide=3, unit_sizes_um=sizes, seed=seed, **more
    )


def test_a_sample_keeps_the_contract(records):
    dataset = _dataset(records, sizes=[55, 16], rates=True)
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
    label, origin_um = sample["label"][0].numpy(), sample["image"].meta["origin_um"]
    found = []
    for target, total, number in zip(sample["target"], sample["total"], sample["unit_index"].tolist(), strict=True):
        row, column = (label == number).nonzero()
        center_um = np.array([column.mean(), row.mean()]) + 0.5 + origin_um  # 1 µm per pixel, here and on the slide
        distance = np.linalg.norm(units.centers_px - center_um, axis=1)
        found.append(distance.argmin())
        assert distance.min() < 1
        assert units.total[found[-1]] == pytest.approx(float(total))
        np.testing.assert_allclose(y[found[-1]], target, atol=1e-5)
    assert len(set(found)) == len(found) > 3


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
    dataset = _dataset(records, sizes=[55, 16], rates=True)
    samples = [dataset[i] for i in range(3)]
    batch = collate_units(samples)
    counts = [len(s["total"]) for s in samples]
    assert batch["image"].shape == (3, 3, 192, 192)
    assert torch.bincount(batch["unit_batch"]).tolist() == counts
    assert len(batch["target"]) == len(batch["unit_group"]) == sum(counts)
    assert len(batch["unit_group"].unique()) == 2 * len(records)


def test_the_finest_units_do_not_drown_the_rest(records):
    some, all_units = (_dataset(records, [16, 55], rates=True, max_units=n)[0] for n in (9, None))
    assert torch.bincount(all_units["unit_layer"])[1] > 50
    n_coarse, n_fine = torch.bincount(some["unit_layer"]).tolist()
    assert 0 < n_coarse <= 9
    assert n_fine <= 9  # some may be cut by the crop's edge
    assert n_fine >= 6
    other = _dataset(records, [16, 55], rates=True, max_units=9)
    torch.testing.assert_close(other[0]["target"], some["target"])
    fine = [{tuple(t) for t in s["target"][s["unit_layer"] == 1].tolist()} for s in (some, all_units)]
    assert fine[0] < fine[1]  # the same crop
    first = {tuple(t) for t in all_units["target"][all_units["unit_layer"] == 1][:20].tolist()}
    assert not fine[0] <= first  # drawn from all of it


def test_a_size_is_the_same_layer_on_every_slide_and_has_a_depth_of_its_own(records, tmp_path):
    coarse_only = {**records[0], "section": "Q", "label": records[0]["label"][:1]}
    dataset = _dataset([*records, coarse_only], [16, 55], rates=True)
    assert dataset.sizes_um == [55, 16]
    depth = dataset.panel.depth_per_um2
    batch = collate_units([dataset[i] for i in range(6)])
    assert set(batch["unit_group"].tolist()) == {0, 1, 2}  # both sizes of the first slide, one of the second
    for layer, area_um2 in ((0, np.pi / 4 * 55**2), (1, 256.0)):
        of_size = batch["unit_layer"] == layer
        torch.testing.assert_close(batch["area_um2"][of_size], torch.full((int(of_size.sum()),), area_um2))
        assert bool(batch["normalised"][of_size].all()) == (layer == 0)
        assert bool(batch["normalised"][of_size].any()) == (layer == 0)
    slide = dataset._slides[0]
    for units, keep, factor in zip(slide.layers, slide.taught, slide.size_factor, strict=True):
        assert factor == pytest.approx(units.total[keep].mean() / units.area_um2 / depth)


def test_empty_small_units_are_learnt_from_where_counts_are(records, tmp_path):
    adata = ad.read_h5ad(records[0]["label"][1])
    adata.X = sp.csr_matrix(sp.diags(np.arange(adata.n_obs) % 2.0) @ adata.X)
    adata.write_h5ad(tmp_path / "half.h5ad")
    half = [{**records[0], "label": [str(tmp_path / "half.h5ad")]}]
    measured, all_units = (_dataset(half, [16], rates=rates)._slides[0] for rates in (False, True))
    assert (measured.layers[0].total[measured.taught[0]] > 0).all()
    assert all_units.taught[0].sum() == adata.n_obs > 1.9 * measured.taught[0].sum()


def test_a_head_without_rates_refuses_units_on_both_sides_of_55_um(records):
    with pytest.raises(InputError, match="55 and 16 µm cannot be trained on together"):
        _dataset(records, [55, 16])


def test_units_outside_the_slide_are_reported_in_a_sentence(records, tmp_path):
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
    assert "hires" not in item
    pictured = SlideDataset(records, SlideReader(), panel, picture_px=100)[0]
    assert 50 <= max(pictured["hires"].shape) <= 100  # what scanpy draws below the spots
    slide = SlideReader().open(item["image"])
    assert pictured["hires_scale"] == pytest.approx(pictured["hires"].shape[1] / slide.level_dimensions[0][0], rel=0.02)
    small = SlideDataset(records, SlideReader(), panel, 16)[0]  # below 55 µm an empty unit is a measurement
    assert len(small["units"]) == load_units(records[0], [16])[0].in_tissue.sum()
    twice = [{**records[0], "label": records[0]["label"] * 2}]
    with pytest.raises(InputError, match="list one a size"):
        SlideDataset(twice, SlideReader(), panel)[0]


def test_two_files_of_one_size_are_refused_and_none_is_left_out(records):
    twice = [{**record, "label": [*record["label"], record["label"][0]]} for record in records]
    with pytest.raises(InputError, match="several files of the slide hold units of one size"):
        _dataset(twice)


def test_another_slides_units_are_refused_in_training_and_scoring(records, phantom):
    swapped = [{**records[0], "label": read_split(phantom, "test")[0]["label"]}]
    panel = fit_panel(records, min_total=20)
    for dataset in (lambda r: SlideDataset(r, SlideReader(), panel), _dataset):
        with pytest.raises(InputError, match="pictures of it differ; barcodes repeat"):
            dataset(swapped)
        dataset([{**records[0], "section": "renamed"}])  # the same picture under another name
