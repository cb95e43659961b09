from __future__ import annotations

import json
import logging
import time

import numpy as np
import pytest
import shapely

from bundle.data.cells import read_cells
from bundle.data.layers import layer_of
from bundle.data.simple_polygons import simple
from bundle.errors import InputError
from transforms import RasterizeUnits

SIZE = (120, 100)


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def scribble(rng: np.random.Generator, n: int) -> list[list[float]]:
    points = rng.uniform((10, 10), (110, 90), (n, 2)).tolist()
    return [*points, points[0]]


def star(n: int = 5, step: int = 2) -> list[list[float]]:
    angle = 2 * np.pi * step * np.arange(n) / n
    points = np.stack([60 + 40 * np.cos(angle), 50 + 40 * np.sin(angle)], 1).tolist()
    return [*points, points[0]]


#: Rings of the parts of one cell.
OUTLINES = {
    "bow-tie": [[[[10, 10], [90, 90], [90, 10], [10, 90], [10, 10]]]],
    "pentagram": [[star()]],
    "hole": [[square(20, 20, 60), square(30, 30, 20)]],
    "hole over the edge": [[square(20, 20, 40), square(50, 50, 30)]],
    "hole in a hole": [[square(10, 10, 80), square(20, 20, 60), square(30, 30, 20)]],
    "two parts": [[square(10, 10, 20)], [square(50, 50, 20)]],
    "parts that overlap": [[square(10, 10, 40)], [square(30, 30, 40)]],
    "parts that share an edge": [[square(10, 10, 20)], [square(30, 10, 20)]],
    "points twice": [[[[10, 10], [10, 10], [60, 10], [60, 10], [60, 60], [10, 60], [10, 10], [10, 10]]]],
    "a spike": [[[[10, 10], [60, 10], [90, 10], [60, 10], [60, 60], [10, 60], [10, 10]]]],
    "a spike and a bow-tie": [
        [[[10, 10], [60, 10], [90, 10], [60, 10], [60, 60], [10, 60], [10, 10]]],
        [[[70, 30], [110, 70], [110, 30], [70, 70], [70, 30]]],
    ],
    "beyond the slide": [[square(-30, 40, 100)]],
    "round the slide": [[square(-500, -500, 2000), square(40, 40, 20)]],
    **{f"scribble {n}": [[scribble(np.random.default_rng(n), n)]] for n in (5, 12, 40)},
}


def read(tmp_path, parts: list, turned: bool = False):
    coordinates = [[ring[::-1] if turned else ring for ring in part] for part in parts]
    feature = {"type": "Feature", "id": "a", "geometry": {"type": "MultiPolygon", "coordinates": coordinates}}
    (tmp_path / "c.geojson").write_text(json.dumps({"features": [feature]}))
    return read_cells(tmp_path / "c.geojson", 0.5, SIZE)


@pytest.mark.parametrize("name", OUTLINES)
def test_the_stated_area_is_the_area_drawn_whichever_way_round(tmp_path, name):
    mpp = 1 / 32
    units = read(tmp_path, OUTLINES[name])
    mask, _ = RasterizeUnits(drop_cut=False)([layer_of(units, 0.5)], (50 * 32, 60 * 32), (0, 0), mpp)
    assert (mask > 0).sum() * mpp**2 == pytest.approx(units.areas_um2[0], rel=3e-3)
    row, column = np.nonzero(mask[0])
    np.testing.assert_allclose(
        ((column + 0.5).mean() * mpp, (row + 0.5).mean() * mpp), units.centers_px[0] / 2, atol=0.1
    )
    assert read(tmp_path, OUTLINES[name], turned=True).areas_um2[0] == pytest.approx(units.areas_um2[0])


def test_areas_are_those_of_the_even_odd_rule(tmp_path):
    known = {"bow-tie": 3200, "hole": 3200, "hole in a hole": 3200, "parts that overlap": 2400, "a spike": 2500}
    for name, area_px2 in known.items():
        assert read(tmp_path, OUTLINES[name]).areas_um2[0] == pytest.approx(area_px2 / 4), name


def test_cells_beyond_the_slide_are_cut_and_reported(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        units = read(tmp_path, [[square(-1e9, -1e9, 2e9)]])
    assert "PixNet cuts 1 cell at the slide's edge" in caplog.text
    assert units.areas_um2[0] == pytest.approx(120 * 100 / 4)
    assert units.reach_um[0] <= 30


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        (square(1e300, 0, 1e300), '"a".*Export the cells again'),
        ([[0, 0], [float("inf"), 0], [9, 9], [0, 0]], '"a".*Export'),
        (square(500, 500, 10), r"1 of 1 cells lie outside the slide \(120 x 100 px\), first a at \(505, 505\)"),
        (scribble(np.random.default_rng(0), 3000), '"a" has 3,000 points and crosses itself'),
        ([[x, y] for x in np.linspace(0, 90, 2**19) for y in (0, 90)], '"a" has 1,048,577 points'),
    ],
)
def test_what_no_cell_can_be_is_refused_in_bounded_time(tmp_path, ring, message):
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        read(tmp_path, [[ring]])
    assert time.monotonic() - started < 20


def test_many_outlines_that_cross_too_often_together_are_refused():
    shapes = np.repeat(shapely.Polygon(scribble(np.random.default_rng(0), 300)), 100)
    with pytest.raises(InputError, match="crosses itself"):
        simple(shapes, [str(i) for i in range(100)], "c.geojson", most_in_all=20_000)


def test_features_without_geometry_are_counted_and_not_fatal(tmp_path, caplog):
    cell = {"type": "Feature", "id": "a", "geometry": {"type": "Polygon", "coordinates": [square(10, 10, 20)]}}
    empty = [
        {**cell, "id": str(i), "geometry": g}
        for i, g in enumerate(
            [
                None,
                {},
                {"type": "Polygon", "coordinates": []},
                {"type": "MultiPolygon", "coordinates": []},
                {"type": "GeometryCollection", "geometries": []},
                {"type": "Polygon", "coordinates": [[]]},
            ]
        )
    ]
    (tmp_path / "c.geojson").write_text(json.dumps([*empty, cell]))
    assert list(read_cells(tmp_path / "c.geojson", 0.5, SIZE).barcodes) == ["a"]
    assert "PixNet leaves out 3 features without polygons or without geometry" in caplog.text
    assert "3 polygons of fewer than three points" in caplog.text
