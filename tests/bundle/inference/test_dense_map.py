from __future__ import annotations

import numpy as np
import pytest
import zarr

from bundle.errors import InputError
from bundle.inference import dense_map
from bundle.inference.dense_map import create_map, open_map, write_projection
from bundle.inference.express import Projection, express
from bundle.writers import ome_zarr
from bundle.writers.nifti import write_nifti
from bundle.writers.ome_zarr import write_map


@pytest.fixture
def dense(tmp_path):
    rng = np.random.default_rng(0)
    projection = Projection(("a", "b"), rng.random((2, 4), np.float32), np.array([1, 2], np.float32))
    dense = create_map(
        tmp_path / "work.zarr",
        channels=4,
        low_px=(512, -256),
        high_px=(512 + 7 * 256, -256 + 10 * 256),
        stride=4,
        block_px=256,
        about={"working_mpp": 2.0, "slide_mpp": 0.5},
        projection=projection,
    )
    values = rng.random(dense.array.shape, np.float32)
    x0, y0 = 512 // 4, -256 // 4
    dense.write(x0, y0 + 64, values[:, 64:])  # the two blocks of the upper left corner are not computed
    dense.write(x0 + 128, y0, values[:, :64, 128:])
    return dense


def test_whole_blocks_are_written_and_nothing_else(dense):
    values = dense.array[:]
    assert np.isnan(values[:, :64, :128]).all()
    assert np.isfinite(values).sum() == values.size - 4 * 64 * 128
    x0, y0 = 512 // 4, -256 // 4
    assert dense.holds(x0 + 128, y0, 64, 128)
    assert not dense.holds(x0 + 64, y0, 128, 128)
    block = np.zeros((4, 64, 64), np.float32)
    with pytest.raises(ValueError, match="Row 64, column 1: 64 x 64 pixels are no whole blocks of 64"):
        dense.write(x0 + 1, 0, block)
    with pytest.raises(ValueError, match="no whole blocks"):
        dense.write(x0, 0, block[:, 1:])
    with pytest.raises(ValueError, match="no whole blocks"):
        dense.write(x0 - 64, 0, block)
    with pytest.raises(ValueError, match="float64"):
        dense.write(x0, 0, block.astype(float))
    with pytest.raises(ValueError, match="3 channels"):
        dense.write(x0, 0, block[1:])


def test_rows_of_a_written_map_are_the_same_and_it_is_not_written_to(dense, tmp_path):
    write_map(dense, tmp_path / "m.zarr", "s")
    written = open_map(tmp_path / "m.zarr")
    y0 = dense.origin_px[1] // dense.stride
    np.testing.assert_array_equal(written.read_rows(y0 + 40, 90), dense.read_rows(y0 + 40, 90))
    with pytest.raises(ValueError, match="not a map in the making"):
        written.write(512 // 4, y0, np.zeros((4, 64, 64), np.float32))


def test_reads_are_windows_of_the_array_and_repeat_its_edge(dense):
    x0, y0 = 512 // 4, -256 // 4
    values = dense.array[:].transpose(1, 2, 0)
    np.testing.assert_array_equal(dense.read(x0 + 130, y0 + 60, 9, 70), values[60:130, 130:139])
    edge = dense.read(x0 - 2, y0 + 300, 4, 2)
    np.testing.assert_array_equal(edge[:, :3], np.repeat(values[300:302, :1], 3, 1))
    for y, height in ((y0 - 1, 3), (y0 + 62, 4), (y0 + 200, 130), (y0 + 3, 10)):
        rows = np.clip(np.arange(y, y + height) - y0, 0, len(values) - 1)
        np.testing.assert_array_equal(dense.read_rows(y, height), np.nan_to_num(values[rows]))


def test_a_block_that_is_cut_short_is_not_read(dense):
    block = dense.path / "0" / "c" / "0" / "1" / "2"
    block.write_bytes(block.read_bytes()[:-4])
    assert not dense.holds(512 // 4 + 128, -256 // 4 + 64, 64, 64)
    with pytest.raises(InputError, match=r"is damaged.* Remove the folder that it is in"):
        dense.read_rows(dense.origin_px[1] // dense.stride + 70, 3)


def test_rows_from_top_to_bottom_are_read_once(dense, monkeypatch):
    height, y0 = dense.array.shape[1], dense.origin_px[1] // dense.stride
    read, seen = [], dense_map.DenseMap._read_strip
    monkeypatch.setattr(dense_map.DenseMap, "_read_strip", lambda self, n: read.append(n) or seen(self, n))
    for y in range(0, height - 5, 5):
        dense.read_rows(y0 + y, 10)
    assert read == list(range(-(-height // dense.array.chunks[1])))
    assert len(dense._strips) <= 2


def test_levels_are_means_and_what_is_unknown_stays_so(dense, tmp_path):
    write_map(dense, tmp_path / "m.zarr", "s")
    group = zarr.open_group(tmp_path / "m.zarr", mode="r")
    fine, coarse = group["0"][:], group["1"][:]
    np.testing.assert_array_equal(fine, dense.array[:])
    known = fine[:, 64:, 128:].astype(np.float64)
    four = known.reshape(4, known.shape[1] // 2, 2, known.shape[2] // 2, 2).mean((2, 4))
    np.testing.assert_allclose(coarse[:, 32:, 64:], four, rtol=1e-5)
    assert np.isnan(coarse[:, :32, :64]).all()
    for number, channel in enumerate(group.attrs["ome"]["omero"]["channels"]):
        assert channel["window"]["max"] == pytest.approx(float(np.nanmax(fine[number])))
        assert channel["window"]["start"] == pytest.approx(float(np.nanmin(fine[number])))
    transforms = group.attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert transforms[0]["scale"] == [1.0, 16.0, 16.0]
    assert transforms[1]["translation"] == [0.0, -512 + 8.0, 1024 + 8.0]


def test_many_genes_and_levels_are_written_block_by_block(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(ome_zarr, "_TOP_PIXELS", 50)
    monkeypatch.setattr(ome_zarr, "_GENES_AT_ONCE", 2)
    genes = ("a", "b", "c", "d", "e")
    rng = np.random.default_rng(1)
    del dense.group["projection"]
    write_projection(dense.group, Projection(genes, rng.random((5, 4), np.float32), np.ones(5, np.float32)))
    order = ["e", "a", "d", "b", "c"]
    write_map(dense, tmp_path / "m.zarr", "s", order)
    group = zarr.open_group(tmp_path / "m.zarr", mode="r")
    part = dense.projection.columns(order)
    level = express(dense.array[:].transpose(1, 2, 0), part).clipped.transpose(2, 0, 1)
    for number in range(5):
        np.testing.assert_allclose(group[str(number)][:], level, rtol=1e-5)
        level = ome_zarr._halve(level)
    assert max(group["4"].shape[1:]) <= 50
    assert repr(open_map(tmp_path / "m.zarr")) == (
        "DenseMap(m.zarr: 5 genes, 640 x 448 pixels of 8 µm, corner at (1024, -512) µm of the slide)"
    )


def test_a_gene_is_a_lazy_array_of_what_the_projection_says(dense, tmp_path):
    pytest.importorskip("dask.array", reason="the extra `cohort` is not installed")
    write_map(dense, tmp_path / "features.zarr", "s")
    write_map(dense, tmp_path / "genes.zarr", "s", ["b"])
    expected = express(dense.array[:].transpose(1, 2, 0), dense.projection).clipped[..., 1]
    for name in ("features.zarr", "genes.zarr"):
        lazy = open_map(tmp_path / name).gene("b")
        assert lazy.shape == expected.shape
        np.testing.assert_allclose(lazy[60:90, 100:300].compute(), expected[60:90, 100:300], rtol=1e-6)
    with pytest.raises(InputError, match="does not hold a"):
        open_map(tmp_path / "genes.zarr").gene("a")


def test_no_map_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="not a map"):
        open_map(tmp_path / "nothing.zarr")


def test_a_region_as_nifti_keeps_place_and_size(dense, tmp_path):
    import nibabel as nib

    write_nifti(dense, tmp_path / "r.nii.gz", ["b", "a"], (2056.0, 400.0, 80.0, 160.0))
    image = nib.load(tmp_path / "r.nii.gz")
    assert image.shape == (10, 20, 1, 2)
    np.testing.assert_allclose(image.header.get_zooms()[:3], 0.008)
    pixels = dense.read(2056 // 8, 400 // 8, 10, 20)
    expected = express(pixels, dense.projection.columns(["b", "a"])).clipped
    np.testing.assert_allclose(np.asarray(image.dataobj)[:, :, 0], expected.transpose(1, 0, 2), rtol=1e-6)
    np.testing.assert_allclose(image.affine[:2, 3], ((2056 + 4) / 1000, (400 + 4) / 1000))
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_region_too_large_for_nifti_is_refused_and_the_largest_is_not(dense, tmp_path, monkeypatch):
    region = (1024.0, 0.0, 80.0, 160.0)
    monkeypatch.setattr("bundle.writers.nifti._MAX_VALUES", 10 * 20 * 2)
    write_nifti(dense, tmp_path / "r.nii", ["b", "a"], region)
    monkeypatch.setattr("bundle.writers.nifti._MAX_VALUES", 10 * 20 * 2 - 1)
    with pytest.raises(InputError, match="10 x 20 map pixels of 2 genes"):
        write_nifti(dense, tmp_path / "s.nii", ["b", "a"], region)
    assert [p.name for p in tmp_path.glob("*.nii")] == ["r.nii"]


@pytest.mark.parametrize("part", ["bias", "loadings"])
def test_a_map_that_lost_a_part_of_its_head_is_refused(tmp_path, part):
    zeros = np.zeros((2, 3), np.float32)  # Zarr would not write them
    projection = Projection(("A", "B"), zeros, zeros[:, 0])
    about = {"working_mpp": 1.0, "slide_mpp": 0.5}
    create_map(
        tmp_path / "m.zarr",
        channels=3,
        low_px=(0, 0),
        high_px=(8, 8),
        stride=2,
        block_px=8,
        about=about,
        projection=projection,
    )
    assert open_map(tmp_path / "m.zarr").genes == ["A", "B"]
    (chunk,) = [p for p in (tmp_path / "m.zarr" / "projection" / part / "c").rglob("*") if p.is_file()]
    chunk.unlink()
    with pytest.raises(InputError, match=f"lost a part of its {part}"):
        open_map(tmp_path / "m.zarr")
