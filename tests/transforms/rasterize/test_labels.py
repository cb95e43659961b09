from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from transforms import LabelImage, LabelLayer, RasterizeUnits
from transforms.rasterize import label_image

DRAW = RasterizeUnits(drop_cut=False)


def cells(seed: int = 0, size=(301, 263), n: int = 90, step: int = 7) -> np.ndarray:
    """Voronoi cells, two in three of them kept and their numbers spread out, uint32 (h, w)."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (n, 2)) * size
    y, x = np.mgrid[: size[0], : size[1]]
    near = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    return np.where(near % 3 > 0, near * step + 1, 0).astype(np.uint32)


def write(path: Path, labels: np.ndarray, how: str) -> LabelImage:
    if how == "npy":
        np.save(path.with_suffix(".npy"), labels)
        return LabelImage(path.with_suffix(".npy"))
    options = {
        "tiles": {"tile": (64, 48), "compression": "deflate"},
        "strips": {"rowsperstrip": 10, "compression": "lzw"},
        "one strip": {"rowsperstrip": labels.shape[0], "compression": "deflate"},
        "plain": {},
        "pyramid": {"tile": (64, 64), "subifds": 1},
    }[how]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(labels, photometric="minisblack", **options)
        if how == "pyramid":
            tiff.write(labels[::2, ::2], photometric="minisblack", tile=(64, 64), subfiletype=1)
    return LabelImage(path)


FORMS = ("npy", "tiles", "strips", "one strip", "plain", "pyramid")


def layer_of(image: LabelImage, pixel_um=(1.0, 1.0)) -> LabelLayer:
    found = image.measure()
    center = found["center"]
    reach = np.maximum(center - found["low"], found["high"] - center) * pixel_um
    areas = found["pixels"] * np.prod(pixel_um)
    return LabelLayer(center * pixel_um, "label", 10.0, areas, reach.max(1), found["ids"], image, pixel_um)


def drawn(layer: LabelLayer, size_px, origin_um=(0.0, 0.0), mpp: float = 1.0) -> np.ndarray:
    """The mask with the labels' own values."""
    mask, (keep,) = DRAW([layer], size_px, origin_um, mpp)
    return np.concatenate([[0], layer.ids[keep]])[mask[0]]


@pytest.fixture(params=[2**23, 1000], ids=["in one read", "in many reads"])
def read_px(request, monkeypatch):
    monkeypatch.setattr(label_image, "MAX_READ_PX", request.param)


@pytest.mark.usefixtures("read_px")
@pytest.mark.parametrize("how", FORMS)
def test_measures_are_those_of_each_labels_pixels(tmp_path, how):
    labels = cells()
    found = write(tmp_path / "l.tif", labels, how).measure()
    np.testing.assert_array_equal(found["ids"], np.unique(labels)[1:])
    for i, label in enumerate(found["ids"]):
        row, column = np.nonzero(labels == label)
        assert found["pixels"][i] == len(row)
        np.testing.assert_allclose(found["center"][i], (column.mean() + 0.5, row.mean() + 0.5))
        np.testing.assert_array_equal(found["low"][i], (column.min(), row.min()))
        np.testing.assert_array_equal(found["high"][i], (column.max() + 1, row.max() + 1))


@pytest.mark.usefixtures("read_px")
@pytest.mark.parametrize("how", FORMS)
def test_at_its_own_scale_the_image_is_drawn_as_it_is(tmp_path, how):
    labels = cells()
    layer = layer_of(write(tmp_path / "l.tif", labels, how))
    want = np.pad(labels, ((7, 20), (5, 30)))
    np.testing.assert_array_equal(drawn(layer, want.shape, (-5, -7)), want)


@pytest.mark.usefixtures("read_px")
@pytest.mark.parametrize(("mpp", "pixel_um"), [(2.0, (0.5, 0.5)), (0.83, (0.5, 0.51)), (1.0, (3.3, 3.3)), (2, (1, 1))])
def test_a_pixel_holds_the_label_at_its_centre_whatever_the_region(tmp_path, mpp, pixel_um):
    labels = cells()
    layer = layer_of(write(tmp_path / "l.tif", labels, "tiles"), pixel_um)
    size = (int(301 * pixel_um[1] / mpp) + 3, int(263 * pixel_um[0] / mpp) + 4)
    y, x = (
        np.floor((np.arange(n) + 0.5) * mpp / um + 1e-6).astype(int) for n, um in zip(size, pixel_um[::-1], strict=True)
    )
    want = np.pad(labels, ((0, 20), (0, 20)))[np.ix_(y, x)]
    whole = drawn(layer, size, (0, 0), mpp)
    np.testing.assert_array_equal(whole, want)
    for x0, y0, width, height in [(0, 0, 20, 30), (13, 17, 1, 1), (20, 31, 27, 30), (11, 9, 40, 8)]:
        part = drawn(layer, (height, width), (x0 * mpp, y0 * mpp), mpp)
        np.testing.assert_array_equal(part, whole[y0 : y0 + height, x0 : x0 + width])


def test_cells_that_no_pixel_centre_falls_on_have_their_own_pixel(tmp_path):
    labels = np.zeros((64, 64), np.uint16)
    labels[1, 1], labels[2, 2] = 5, 6  # both in the pixel (0, 0) of 8 label pixels, off its centre (4, 4)
    labels[20:31, 18:30] = 7
    labels[17, 17] = 8  # in the pixel (2, 2), which 7 holds
    layer = layer_of(write(tmp_path / "l.tif", labels, "plain"))

    def pixels(width: int, at: int = 0) -> set:
        unit, row, column = DRAW.pixels(layer, (8, width), (at * 8.0, 0), 8.0)
        return set(zip(layer.ids[unit].tolist(), row.tolist(), (column + at).tolist(), strict=True))

    assert {(5, 0, 0), (6, 0, 0), (8, 2, 2), (7, 2, 2)} <= pixels(8)
    assert set.union(*(pixels(1, at) for at in range(8))) == pixels(8)
    masks, keeps = DRAW([layer], (8, 8), (0, 0), 8.0)
    assert np.sum(keeps, 0).tolist() == [1, 1, 1, 1]
    assert len(masks) == 2


def test_a_cell_around_its_own_centre_does_not_take_the_pixel_there(tmp_path):
    labels = np.zeros((40, 40), np.uint8)
    labels[2:38, 2:38] = 3
    labels[8:32, 8:] = 0
    layer = layer_of(write(tmp_path / "l.tif", labels, "plain"))
    column, row = np.floor(layer.centers_um[0]).astype(int)
    assert labels[row, column] == 0
    assert not drawn(layer, (6, 6), (column - 3, row - 3)).any()


def test_some_of_the_cells_are_drawn_alone_and_cut_ones_dropped(tmp_path):
    labels = cells(n=300)
    layer = layer_of(write(tmp_path / "l.tif", labels, "tiles"))
    chosen = np.arange(0, len(layer.ids), 2)[::-1]
    part = {k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in vars(layer).items()}
    mask, (keep,) = DRAW([part], labels.shape, (0, 0), 1.0)
    assert keep.all()
    np.testing.assert_array_equal(
        np.concatenate([[0], part["ids"]])[mask[0]], np.where(np.isin(labels, part["ids"]), labels, 0)
    )
    mask, (keep,) = RasterizeUnits(drop_cut=True)([layer], (120, 100), (30, 40), 1.0)
    inside = labels[40:160, 30:130]
    for label, kept in zip(layer.ids, keep, strict=True):
        if kept:
            assert (inside == label).sum() == (labels == label).sum()
    assert 0 < keep.sum() < len(keep)


def test_it_travels_as_its_path(tmp_path):
    labels = cells()
    image = pickle.loads(pickle.dumps(write(tmp_path / "l.tif", labels, "tiles")))
    np.testing.assert_array_equal(image.read(100, 50, 30, 40), labels[50:90, 100:130])


def test_big_numbers_and_no_cells(tmp_path):
    labels = cells().astype(np.uint32) * np.uint32(4_000_037)
    found = write(tmp_path / "l.tif", labels, "tiles").measure()
    np.testing.assert_array_equal(found["ids"], np.unique(labels)[1:])
    empty = write(tmp_path / "e.tif", np.zeros((50, 60), np.int32), "tiles")
    assert empty.measure()["center"].shape == (0, 2)
    assert not drawn(layer_of(empty), (20, 20)).any()


def test_what_is_no_label_image_is_reported_in_a_sentence(tmp_path):
    for array, message in [
        (np.zeros((20, 20), np.float32), "float32 values; labels are whole"),
        (np.zeros((20, 20), bool), "true and false"),
        (np.zeros((20, 20, 3), np.uint8), "one plane"),
    ]:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=message):
            LabelImage(tmp_path / "a.npy")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match="one plane"):
        LabelImage(tmp_path / "rgb.tif")
    with pytest.raises(ValueError, match="No such label image"):
        LabelImage(tmp_path / "none.tif")
    (tmp_path / "junk.tif").write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read as a label image"):
        LabelImage(tmp_path / "junk.tif")
    image = write(tmp_path / "cut.tif", cells(), "tiles")
    (tmp_path / "cut2.tif").write_bytes(Path(image.path).read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cut short or damaged|cannot be read as a label image"):
        LabelImage(tmp_path / "cut2.tif").measure()
    with pytest.raises(ValueError, match="negative"):
        write(tmp_path / "n.tif", np.full((9, 9), -1, np.int16), "plain").measure()
    layer = layer_of(write(tmp_path / "l.tif", cells(), "plain"))
    with pytest.raises(ValueError, match="an id of its own"):
        DRAW([{**vars(layer), "ids": np.ones_like(layer.ids)}], (9, 9), (0, 0), 1.0)
    with pytest.raises(ValueError, match="one entry for each"):
        DRAW([{**vars(layer), "ids": layer.ids[1:]}], (9, 9), (0, 0), 1.0)
