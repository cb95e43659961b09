from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile

from bundle.data.build_units import build_units
from bundle.data.cells import is_cells, read_cells
from bundle.data.layers import layer_of, take_layer
from bundle.data.read_units import read_units
from bundle.data.units import units_table
from bundle.errors import InputError
from transforms import LabelImage, RasterizeUnits

SIZE = (400, 300)  # the slide's width and height
SQUARE = np.array([[0, 0], [20, 0], [20, 20], [0, 20]])


def ring(points: np.ndarray) -> list[list[float]]:
    return [*points.tolist(), points[0].tolist()]


def cell(x: float = 10, y: float = 10, *, holes: tuple = (), geometry: dict | None = None, **feature) -> dict:
    at = np.array([x, y])
    rings = [ring(SQUARE + at), *(ring(h + at) for h in holes)]
    return {"type": "Feature", "geometry": geometry or {"type": "Polygon", "coordinates": rings}, **feature}


def qupath(x: float, y: float, uuid: str, kind: str = "cell", label: dict | None = None) -> dict:
    """As QuPath 0.4 and later write it."""
    properties = {"objectType": kind, "measurements": {"Nucleus: Area": 12.5}}
    if label is not None:
        properties["classification"] = label
    nucleus = {"type": "Polygon", "coordinates": [ring(SQUARE / 4 + (x + 5, y + 5))]}
    return cell(x, y, id=uuid, nucleusGeometry=nucleus, properties=properties)


def write(folder: Path, features: list | dict, name: str = "cells.geojson", collection: bool = True) -> Path:
    whole = {"type": "FeatureCollection", "features": features} if collection else features
    path = folder / name
    text = json.dumps(whole)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["c.geojson", "c.json", "c.geojson.gz"])
@pytest.mark.parametrize("collection", [True, False])
def test_qupaths_export_is_read(tmp_path, name, collection):
    features = [
        qupath(10, 20, "aaa", label={"name": "Tumor", "color": [200, 0, 0]}),
        qupath(50, 20, "bbb"),
        qupath(90, 20, "ccc", "detection", {"names": ["Tumor", "Positive"]}),
    ]
    path = write(tmp_path, features, name, collection)
    assert is_cells(path)
    units = read_cells(path, 0.5, SIZE)
    assert list(units.barcodes) == ["aaa", "bbb", "ccc"]
    np.testing.assert_allclose(units.centers_px, [[20, 30], [60, 30], [100, 30]])
    np.testing.assert_allclose(units.areas_um2, 100)
    np.testing.assert_allclose(units.reach_um, 5)
    assert units.shape == "polygon"
    assert units.size_um == pytest.approx(2 * np.sqrt(100 / np.pi))
    table = units_table(units)
    assert list(table) == ["area_um2", "classification"]
    assert table["classification"].tolist()[::2] == ["Tumor", "Tumor: Positive"]
    assert table["classification"].isna().tolist() == [False, True, False]
    part = units_table(units.take(np.array([2, 0])))
    assert part["classification"].tolist() == ["Tumor: Positive", "Tumor"]
    assert list(part.index) == ["ccc", "aaa"]


def test_holes_parts_and_heights(tmp_path):
    hole = np.array([[5, 5], [15, 5], [15, 15], [5, 15]])
    two = {"type": "MultiPolygon", "coordinates": [[ring(SQUARE + 100), ring(hole + 100)], [ring(SQUARE[::-1] + 150)]]}
    high = {"type": "Polygon", "coordinates": [[[x, y, 7.5] for x, y in ring(SQUARE + 200)]]}
    units = read_cells(write(tmp_path, [cell(holes=(hole,)), cell(geometry=two), cell(geometry=high)]), 0.5, SIZE)
    np.testing.assert_allclose(units.areas_um2, [75, 175, 100])
    mask, _ = RasterizeUnits()([layer_of(units, 0.5)], SIZE[::-1], (0, 0), 0.5)
    np.testing.assert_array_equal(np.bincount(mask.ravel())[1:], [300, 700, 400])
    assert mask[0, 20, 20] == 0
    assert mask[0, 13, 13] == 1


def test_names_are_ids_else_names_else_numbers(tmp_path):
    features = [cell(0, 0, id=17), cell(50, 0, properties={"name": "n"}), cell(100, 0, properties=None), cell(150, 0)]
    assert list(read_cells(write(tmp_path, features), 0.5, SIZE).barcodes) == ["17", "n", "3", "4"]
    legacy = [cell(0, 0, id="PathCellObject"), cell(50, 0, id="PathCellObject")]  # as QuPath 0.2 wrote them
    assert list(read_cells(write(tmp_path, legacy), 0.5, SIZE).barcodes) == ["1", "2"]
    assert read_cells(write(tmp_path, cell(5, 5, id="one"), collection=False), 0.5, SIZE).barcodes == ["one"]


def test_annotations_are_left_out_only_beside_cells(tmp_path, caplog):
    around = qupath(5, 5, "around", "annotation")
    with caplog.at_level(logging.INFO):
        assert list(read_cells(write(tmp_path, [around, qupath(10, 10, "a")]), 0.5, SIZE).barcodes) == ["a"]
    assert "PixNet leaves out 1 annotation beside the cells" in caplog.text
    assert list(read_cells(write(tmp_path, [around, qupath(50, 50, "b", "annotation")]), 0.5, SIZE).barcodes) == [
        "around",
        "b",
    ]


def test_polygons_without_area_are_left_out_and_counted(tmp_path, caplog):
    line = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]}
    flat = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [18, 18], [0, 0]]]}
    empty = {"type": "Polygon", "coordinates": []}
    half = {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 1]]], [ring(SQUARE)]]}
    features = [cell(geometry=g, id=n) for n, g in (("l", line), ("f", flat), ("e", empty), ("h", half))] + [
        cell(id="c")
    ]
    units = read_cells(write(tmp_path, features), 0.5, SIZE)
    assert list(units.barcodes) == ["h", "c"]
    np.testing.assert_allclose(units.areas_um2, 100)
    assert "PixNet leaves out 3 polygons of fewer than three points or without area (first: l)" in caplog.text


def test_cells_over_the_slides_edge_stay(tmp_path):
    assert len(read_cells(write(tmp_path, [cell(-9, -9), cell(389, 289)]), 0.5, SIZE)) == 2


def test_outlines_in_micrometres_are_suspected(tmp_path, caplog):
    read_cells(write(tmp_path, [cell()]), 0.1, SIZE)
    assert "less than any cell does" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "is not GeoJSON"),
        ("", "is not GeoJSON"),
        ('{"type": "FeatureCollection", "features": [{"type": "Feature"', "is not GeoJSON"),
        ('[{"type": "Feature"} {"type": "Feature"}]', "breaks off or is damaged"),
        ('{"type": "FeatureCollection", "features": []}', r"no polygon \(it has no features\)"),
        (
            '[{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}, 3, null]',
            "3 features that are no",
        ),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}}]', "1 polygon of fewer than three"),
        ('[{"geometry": {"type": "Polygon", "coordinates": [1, 2]}}]', "feature 1 .* not lists of numbers"),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[["a", "b"]]]}}]', "not lists of numbers"),
        ('[{"geometry": {"type": "Polygon", "coordinates": null}}]', "not lists of numbers"),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1]]]}}]', "no numbers"),
        ('[{"geometry": {"type": "Polygon", "coordinates": [[[0], [1], [1]]]}}]', "not lists of numbers"),
    ],
)
def test_bad_files_are_reported_in_a_sentence(tmp_path, text, message):
    (tmp_path / "c.geojson").write_text(text)
    with pytest.raises(InputError, match=message):
        read_cells(tmp_path / "c.geojson", 0.5, SIZE)


def test_bad_cells_are_reported_in_a_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"2 of 3 cells lie outside the slide .* first far at \(1010, 20\).*level-0 pix"
    ):
        read_cells(write(tmp_path, [cell(id="in"), cell(1000, id="far"), cell(-500, id="left")]), 0.5, SIZE)
    with pytest.raises(InputError, match=r"1 names belong to more than one cell \(first: x\)"):
        read_cells(write(tmp_path, [cell(id="x"), cell(50, id="x"), cell(90, id="y")]), 0.5, SIZE)
    with pytest.raises(InputError, match="No such file"):
        read_cells(tmp_path / "none.geojson", 0.5, SIZE)
    (tmp_path / "c.csv").write_text("x,y")
    assert not is_cells(tmp_path / "c.csv")
    with pytest.raises(InputError, match="its ending"):
        read_cells(tmp_path / "c.csv", 0.5, SIZE)
    (tmp_path / "c.geojson.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="is not GeoJSON"):
        read_cells(tmp_path / "c.geojson.gz", 0.5, SIZE)
    (tmp_path / "latin.json").write_bytes('[{"id": "Zürich"}]'.encode("latin-1"))
    with pytest.raises(InputError, match="is not GeoJSON"):
        read_cells(tmp_path / "latin.json", 0.5, SIZE)


# Label images


def labels(scale: int = 1) -> np.ndarray:
    image = np.zeros((SIZE[1] // scale, SIZE[0] // scale), np.uint32)
    for number, (x, y) in enumerate([(10, 20), (50, 20), (90, 20)], start=1):
        image[y // scale : (y + 20) // scale, x // scale : (x + 20) // scale] = number * 1000
    return image


@pytest.mark.parametrize("scale", [1, 2, 5])
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_a_label_image_says_the_same_as_outlines(tmp_path, scale, ending):
    path = tmp_path / f"l.{ending}"
    if ending == "npy":
        np.save(path, labels(scale))
    else:
        tifffile.imwrite(path, labels(scale), tile=(16, 16), compression="deflate")
    assert is_cells(path)
    cells = read_cells(path, 0.5, SIZE, LabelImage)
    outlines = read_cells(write(tmp_path, [cell(10, 20), cell(50, 20), cell(90, 20)]), 0.5, SIZE)
    assert list(cells.barcodes) == ["1000", "2000", "3000"]
    assert cells.shape == "label"
    assert cells.size_um == pytest.approx(outlines.size_um)
    np.testing.assert_allclose(cells.centers_px, outlines.centers_px)
    np.testing.assert_allclose(cells.areas_um2, outlines.areas_um2)
    np.testing.assert_allclose(cells.reach_um, outlines.reach_um)
    assert list(units_table(cells)) == ["area_um2"]
    index = np.array([2, 0])
    draw = RasterizeUnits()
    want = draw([take_layer(layer_of(outlines, 0.5), index)], (40, 60), (0, 0), 1.0)
    for layer in (take_layer(layer_of(cells, 0.5), index), layer_of(cells.take(index), 0.5)):
        got = draw([layer], (40, 60), (0, 0), 1.0)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize(
    ("size", "want"),
    [
        ((400, 300), (1, 1)),
        ((200, 150), (2, 2)),
        ((133, 100), (3, 3)),
        ((134, 100), (3, 3)),
        ((172, 129), (400 / 172, 300 / 129)),
    ],
)
def test_a_label_images_scale_follows_from_its_size(tmp_path, size, want):
    image = np.zeros(size[::-1], np.uint8)
    image[10:20, 30:50] = 4
    np.save(tmp_path / "l.npy", image)
    units = read_cells(tmp_path / "l.npy", 0.5, SIZE, LabelImage)
    np.testing.assert_allclose(units.centers_px, [[40 * want[0], 15 * want[1]]])
    np.testing.assert_allclose(units.areas_um2, 200 * want[0] * want[1] * 0.25)
    np.testing.assert_allclose(units.reach_um, 10 * want[0] * 0.5)


def test_bad_label_images_are_reported_in_a_sentence(tmp_path):
    for shape, message in [
        ((100, 100), "at no scale"),
        ((300, 380), "at no scale"),
        ((600, 800), "more than the slide's"),
    ]:
        np.save(tmp_path / "l.npy", np.ones(shape, np.uint8))
        with pytest.raises(InputError, match=message):
            read_cells(tmp_path / "l.npy", 0.5, SIZE, LabelImage)
    np.save(tmp_path / "l.npy", np.zeros((300, 400), np.uint8))
    with pytest.raises(InputError, match="holds no cell"):
        read_cells(tmp_path / "l.npy", 0.5, SIZE, LabelImage)
    with pytest.raises(InputError, match="say what opens it"):
        read_cells(tmp_path / "l.npy", 0.5, SIZE)
    np.save(tmp_path / "l.npy", np.zeros((300, 400), np.float32))
    with pytest.raises(ValueError, match="float32 values"):
        read_cells(tmp_path / "l.npy", 0.5, SIZE, LabelImage)


@pytest.mark.parametrize("first", [2**53, 2**63, 2**64 - 3])
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_neighbouring_labels_stay_apart_however_large(tmp_path, first, ending):
    image = np.zeros(SIZE[::-1], np.uint64)
    for i in range(3):
        image[20:40, 20 + 40 * i : 40 + 40 * i] = first + i
    path = tmp_path / f"l.{ending}"
    np.save(path, image) if ending == "npy" else tifffile.imwrite(path, image)
    cells = read_cells(path, 0.5, SIZE, LabelImage)
    assert list(cells.barcodes) == [str(first + i) for i in range(3)]
    np.testing.assert_allclose(cells.centers_px, [[30, 30], [70, 30], [110, 30]])
    mask, _ = RasterizeUnits()([layer_of(cells, 0.5)], SIZE[::-1], (0, 0), 0.5)
    np.testing.assert_array_equal(np.bincount(mask.ravel())[1:], [400] * 3)


def test_large_ids_of_outlines_stay_apart(tmp_path):
    units = read_cells(write(tmp_path, [cell(0, 0, id=2**53), cell(50, 0, id=2**53 + 1)]), 0.5, SIZE)
    assert list(units.barcodes) == [str(2**53), str(2**53 + 1)]


# What a prediction carries


def test_the_table_survives_a_file_and_cells_are_no_measured_units(tmp_path):
    features = [qupath(10, 20, "a", label={"name": "Tumor"}), qupath(50, 20, "b")]
    units = read_cells(write(tmp_path, features), 0.5, SIZE)
    about = {"shape": units.shape, "size_um": units.size_um, "mpp": 0.5, "section": "s"}
    adata = build_units(np.zeros((2, 1)), ["g"], list(units.barcodes), units.centers_px, **about)
    adata.obs = adata.obs.join(units_table(units))
    adata.write_h5ad(tmp_path / "p.h5ad")
    back = ad.read_h5ad(tmp_path / "p.h5ad")
    assert back.obs["area_um2"].tolist() == [100, 100]
    assert back.obs["classification"].tolist()[0] == "Tumor"
    with pytest.raises(InputError, match="shapes of their own"):
        read_units(tmp_path / "p.h5ad")


def test_spots_have_no_columns_of_their_own(tmp_path):
    build_units(
        np.ones((1, 1)), ["g"], ["s"], np.ones((1, 2)), shape="circle", size_um=55, mpp=0.5, section="s"
    ).write_h5ad(tmp_path / "u.h5ad")
    units = read_units(tmp_path / "u.h5ad")
    assert units_table(units).shape == (1, 0)
    np.testing.assert_allclose(units.areas_um2, units.area_um2)
