"""Visium HD as Space Ranger 3 and 4 write it, and the traps in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

from bundle.data.manifest import read_manifest
from bundle.data.read_units import read_units
from bundle.errors import InputError
from bundle.importing import prepare
from bundle.readers import recognise, tenx

pytest.importorskip("pyarrow")
NAMES = [f"G{i}" for i in range(19)] + ["G0"]
UPRIGHT = np.eye(3)


@pytest.fixture
def hd(tmp_path: Path, specimen, write_10x) -> Callable[..., Path]:
    """Writes Visium HD's folders; `bend` takes pixels of an upright array to those of the picture."""

    def write(
        sizes_um: tuple[int, ...] = (8, 16),
        bend: np.ndarray = UPRIGHT,
        outer: str = "binned_outputs",
        prefix: str = "",
        kinds: list[str] | None = None,
        link: bool = False,
    ) -> Path:
        root = tmp_path / "HD1" / "outs"
        for size_um in sizes_um:
            folder = root / outer / f"{prefix}square_{size_um:03d}um"
            (folder / "spatial").mkdir(parents=True)
            side_px = size_um / specimen.mpp
            rows, columns = int(specimen.height_px / side_px), int(specimen.width_px / side_px)
            row, column = np.divmod(np.arange(rows * columns), columns)
            if size_um < 16:  # a part is enough
                part = (abs(row * size_um - 650) < 250) & (abs(column * size_um - 700) < 300)
                row, column = row[part], column[part]
            flat = np.column_stack([(column + 0.5) * side_px, (row + 0.5) * side_px, np.ones(len(row))]) @ bend.T
            centers = flat[:, :2] / flat[:, 2:]
            inside = ((centers > 0) & (centers < (specimen.width_px, specimen.height_px))).all(1)
            barcodes = np.array([f"s_{size_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)])
            table = pd.DataFrame({"barcode": barcodes, "in_tissue": (specimen.amount(centers) > 0).astype(int)})
            table["array_row"], table["array_col"] = row, column
            table["pxl_row_in_fullres"], table["pxl_col_in_fullres"] = centers[:, 1], centers[:, 0]
            table.sample(frac=1, random_state=0).to_parquet(folder / "spatial" / "tissue_positions.parquet")
            factors = {"bin_size_um": float(size_um), "microns_per_pixel": specimen.mpp, "tissue_hires_scalef": 0.5}
            (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
            on = np.flatnonzero(inside & (table["in_tissue"] == 1))
            counts = specimen.counts(centers[on], per_unit=size_um**2 / 8)
            write_10x(folder / "filtered_feature_bc_matrix.h5", counts, barcodes[on].tolist(), NAMES, kinds)
        picture = tmp_path / "store" / "slide.png" if link else root / "slide.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(specimen.picture).save(picture, compress_level=1)
        if link:
            (root / "slide.png").symlink_to(picture)
        return root

    return write


def units_of(out: Path) -> list:
    return [read_units(label) for label in read_manifest(out)["training"][0]["label"]]


@pytest.mark.parametrize("link", [False, True])
def test_bins_of_several_sizes_lie_where_they_were_measured(hd, tmp_path, specimen, link):
    root = hd(link=link)
    assert recognise(root) == "visium-hd"
    prepare(root, tmp_path / "out")
    assert read_manifest(tmp_path / "out")["training"][0]["section"] == "HD1"
    for units, size_um in zip(units_of(tmp_path / "out"), (8, 16), strict=True):
        assert (units.shape, units.size_um, units.mpp) == ("square", size_um, specimen.mpp)
        place = np.array([[int(name[14:19]), int(name[8:13])] for name in units.barcodes])
        np.testing.assert_allclose(units.centers_px, (place + 0.5) * size_um / specimen.mpp)
        assert np.corrcoef(units.total, specimen.amount(units.centers_px))[0, 1] > 0.3
        np.testing.assert_array_equal(units.obs[["array_col", "array_row"]], place)
    assert json.loads((tmp_path / "out" / "checks" / "HD1.json").read_text())["doubts"] == []


def test_two_µm_bins_come_on_request_alone(hd, tmp_path):
    root, messages = hd((4, 16)), []
    prepare(root, tmp_path / "out", progress=messages.append)
    assert [u.size_um for u in units_of(tmp_path / "out")] == [16]
    assert "Bins of 4 µm are there too: --bin-um 4" in messages[0]
    prepare(root, tmp_path / "fine", sizes_um=[4])
    assert [u.size_um for u in units_of(tmp_path / "fine")] == [4]
    with pytest.raises(InputError, match="holds no bins of 2 µm; it holds 4, 16 µm"):
        prepare(root, tmp_path / "none", sizes_um=[2])


def test_blocks_read_one_by_one_are_the_matrix(hd, tmp_path, monkeypatch):
    root = hd((16,))
    prepare(root, tmp_path / "whole")
    monkeypatch.setattr(tenx, "_BLOCK_VALUES", 1000)
    prepare(root, tmp_path / "blocks")
    (whole,), (blocks,) = units_of(tmp_path / "whole"), units_of(tmp_path / "blocks")
    assert (whole.counts != blocks.counts).nnz == 0
    np.testing.assert_array_equal(whole.barcodes, blocks.barcodes)


def test_duplicate_symbols_are_summed(hd, tmp_path):
    root = hd((16,))
    prepare(root, tmp_path / "out")
    (units,) = units_of(tmp_path / "out")
    matrix = tenx.read_matrix(root / "binned_outputs" / "square_016um" / "filtered_feature_bc_matrix.h5")
    raw = sp.vstack(list(matrix.blocks(np.arange(20))))
    assert len(units.genes) == 19
    np.testing.assert_array_equal(
        units.counts_of(["G0"]).ravel(), raw[:, 0].toarray().ravel() + raw[:, 19].toarray().ravel()
    )


def test_features_that_are_no_genes_can_arrive(hd, tmp_path):
    prepare(hd((16,), kinds=["Gene Expression"] * 17 + ["Antibody Capture"] * 3), tmp_path / "out")
    assert len(units_of(tmp_path / "out")[0].genes) == 17


@pytest.mark.parametrize(("outer", "prefix"), [("binned_outputs", "S9_"), ("S9_binned_outputs", ""), ("parts", "")])
def test_names_may_have_a_prefix_and_folders_another_name(hd, tmp_path, outer, prefix):
    root = hd((16,), outer=outer, prefix=prefix)
    image = root / "slide.png"
    prepare(root, tmp_path / "out", image=image)
    assert read_manifest(tmp_path / "out")["training"][0]["section"] in ("S9", "parts", "HD1")


def turned(degrees: float, perspective: float = 0.0) -> np.ndarray:
    a = np.deg2rad(degrees)
    spin = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    middle = np.array([[1, 0, 600], [0, 1, 450], [0, 0, 1.0]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [perspective, 0, 1]])
    return middle @ tilt @ spin @ np.linalg.inv(middle)


def test_a_projective_alignment_makes_bins_quadrilaterals(hd, tmp_path, specimen):
    bend = turned(0, 2e-4)
    root, messages = hd((16,), bend), []
    prepare(root, tmp_path / "out", progress=messages.append)
    (units,) = units_of(tmp_path / "out")
    assert units.shape == "polygon"
    assert "in perspective" in messages[0]
    n = len(units)
    corners = units.geometry.vertices_px.reshape(n, 4, 2)
    place = np.array([[int(name[14:19]), int(name[8:13])] for name in units.barcodes])
    around = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    flat = np.concatenate([(place[:, None] + around) * 8.0, np.ones((n, 4, 1))], axis=2) @ bend.T
    want = flat[..., :2] / flat[..., 2:]
    found = np.linalg.norm(corners[:, :, None] - want[:, None], axis=3).min(2)
    assert found.max() < 0.01
    prepare(root, tmp_path / "squares", shape="square")
    assert units_of(tmp_path / "squares")[0].shape == "square"


@pytest.mark.parametrize("degrees", [90, 180, 270, 1])
def test_an_array_that_lies_another_way_round_has_upright_squares(hd, tmp_path, degrees):
    prepare(hd((16,), turned(degrees)), tmp_path / "out")
    assert units_of(tmp_path / "out")[0].shape == "square"


def test_a_stated_scale_that_the_grid_contradicts_is_reported(hd, tmp_path):
    root = hd((16,))
    path = root / "binned_outputs" / "square_016um" / "spatial" / "scalefactors_json.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "microns_per_pixel": 2.3}))
    with pytest.raises(InputError, match=r"says 2\.3 µm per pixel, but bins of 16 µm lie 8 px apart, which makes 2"):
        prepare(root, tmp_path / "out", strict=True)


def test_segmented_outputs_are_cells(hd, tmp_path, specimen, write_10x):
    root = hd((16,))
    folder = root / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    source = root / "binned_outputs" / "square_016um" / "spatial" / "scalefactors_json.json"
    (folder / "spatial" / "scalefactors_json.json").write_text(source.read_text())
    rng = np.random.default_rng(5)
    centers = rng.uniform((300, 250), (600, 500), (40, 2))
    features = []
    for i, (x, y) in enumerate(centers, 1):
        angle = np.linspace(0, 2 * np.pi, 9)
        ring = np.column_stack([x + 4 * np.cos(angle), y + 3 * np.sin(angle)]).round(2).tolist()
        ring[-1] = ring[0]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"cell_id": i}, "geometry": geometry})
    collection = {"type": "FeatureCollection", "features": features[::-1]}
    (folder / "cell_segmentations.geojson").write_text(json.dumps(collection))
    counts = specimen.counts(centers, per_unit=50)
    names = [f"cellid_{i:09d}-1" for i in range(1, 41)]
    write_10x(folder / "filtered_feature_cell_matrix.h5", counts, names, NAMES)
    prepare(root, tmp_path / "out", units="cells")
    (cells,) = units_of(tmp_path / "out")
    assert (cells.shape, len(cells), list(cells.barcodes)) == ("polygon", 40, names)
    np.testing.assert_allclose(cells.centers_px, centers, atol=0.05)
    np.testing.assert_array_equal(cells.total, counts.sum(1).A1 if hasattr(counts.sum(1), "A1") else counts.sum(1))
    assert cells.size_um == pytest.approx(2 * np.sqrt(12) * 0.95 * specimen.mpp, rel=0.02)


def test_quadrilaterals_are_trained_on_as_they_lie(hd, tmp_path, tiny):
    from bundle import workflows

    prepare(hd((64,), turned(20)), tmp_path / "out", split_by="block", sizes_um=[64])
    assert units_of(tmp_path / "out")[0].shape == "polygon"
    workflows.train(tmp_path / "out", tmp_path / "run", settings={**tiny, "min_total": 5})
    assert (tmp_path / "run" / "models" / "model.pt").is_file()


def test_bins_without_a_position_are_reported(hd, tmp_path):
    root = hd((16,))
    path = root / "binned_outputs" / "square_016um" / "spatial" / "tissue_positions.parquet"
    pd.read_parquet(path).query("array_row < 50").to_parquet(path)
    with pytest.raises(InputError, match=r"has no position for .* bins of the matrix"):
        prepare(root, tmp_path / "out")


@pytest.mark.real
def test_a_vendor_stub_of_visium_hd(real_data: Path, tmp_path: Path) -> None:
    prepare(real_data / "visiumio_fixture" / "binned_outputs", tmp_path, picture="lowres")
    (units,) = units_of(tmp_path)
    assert (len(units), units.size_um) == (10, 2.0)
    full_mpp = units.mpp * 0.02505533
    assert full_mpp == pytest.approx(0.2738242950835738, rel=1e-6)
