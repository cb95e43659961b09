from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import shapely

from bundle.data.layers import layer_of, take_layer
from bundle.data.polygons import Polygons, take_ragged
from bundle.data.units import Units, is_interpolated
from transforms import RasterizeUnits


def star(rng: np.random.Generator, center: tuple[float, float], radius: float, n: int = 400) -> np.ndarray:
    angle = 2 * np.pi * (np.arange(n) + rng.uniform(0, 1)) / n
    lobes = radius * (1 + 0.3 * np.cos(3 * angle + rng.uniform(0, 6)))
    return np.array(center) + lobes[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def polygons(seed: int = 0) -> Polygons:
    """A plain cell, one with a hole, one of two parts of which one has a hole, a triangle; either way round."""
    rng = np.random.default_rng(seed)

    def ring(center: tuple[float, float], radius: float) -> np.ndarray:
        return star(rng, center, radius)[:: rng.choice([-1, 1])]

    one, two = ring((100, 100), 30), shapely.Polygon(ring((300, 100), 40), [ring((310, 95), 12)])
    parts = [shapely.Polygon(ring((100, 300), 20)), shapely.Polygon(ring((200, 300), 30), [ring((200, 300), 9)])]
    triangle = shapely.Polygon([[300.0, 300], [340, 300], [300, 330]])
    return Polygons.of_shapes(np.array([shapely.Polygon(one), two, shapely.MultiPolygon(parts), triangle]))


def units_of(geometry: Polygons, mpp: float = 0.5) -> Units:
    n = len(geometry)
    return Units(
        "cells",
        np.array([f"c{i}" for i in range(n)]),
        np.array([], str),
        sp.csr_matrix((n, 0), dtype=np.float32),
        geometry.centroids_px,
        np.ones(n, bool),
        "polygon",
        30.0,
        "counts",
        mpp,
        geometry,
    )


@pytest.mark.parametrize("seed", range(5))
def test_areas_centroids_and_reach_are_those_of_the_pixels_inside(seed):
    units = units_of(polygons(seed), mpp=0.5)
    layer = layer_of(units, 0.5)
    mpp = 0.125
    mask, (keep,) = RasterizeUnits()([layer], (2000, 2000), (0, 0), mpp)
    assert keep.all()
    for i in range(len(units)):
        row, column = np.nonzero(mask[0] == i + 1)
        at = (np.stack([column, row], 1) + 0.5) * mpp
        center = units.centers_px[i] * 0.5
        assert len(row) * mpp**2 == pytest.approx(units.areas_um2[i], rel=2e-3)
        np.testing.assert_allclose(at.mean(0), center, atol=0.03)
        assert np.abs(at - center).max() == pytest.approx(units.reach_um[i], abs=1.5 * mpp)
    assert units.area_um2 == pytest.approx(units.areas_um2.mean())


def test_far_from_the_corner_nothing_is_lost():
    near = polygons()
    far = Polygons.of_shapes(np.array([shapely.box(100_000, 100_000, 100_020, 100_020)]))
    assert far.areas_px2 == pytest.approx(400)
    np.testing.assert_allclose(far.centroids_px, [[100_010, 100_010]])
    np.testing.assert_allclose(far.reach_px, [10])
    assert near.vertices_px.dtype == np.float32


def test_there_may_be_no_polygon():
    none = Polygons.of_shapes(np.array([], dtype=object))
    assert len(none) == len(none.areas_px2) == len(none.reach_px) == 0


def test_ragged_selection_is_that_of_lists():
    rng = np.random.default_rng(0)
    lists = [list(rng.integers(0, 100, n)) for n in (3, 0, 5, 1)]
    offsets, flat = np.cumsum([0, *map(len, lists)]), np.concatenate(lists)
    for index in ([2, 0, 2], [1], [], [True, False, True, False]):
        index = np.array(index, dtype=bool if index and isinstance(index[0], bool) else int)
        place, taken = take_ragged(offsets, index)
        chosen = [lists[i] for i in np.arange(4)[index]]
        assert [list(flat[place][a:b]) for a, b in pairwise(taken)] == chosen


@pytest.mark.parametrize("index", [[2, 0], [3], [], [False, True, True, False]])
def test_some_units_of_a_layer_are_drawn_as_among_all(index):
    units = units_of(polygons())
    chosen = np.arange(4)[index] if index else np.array([], int)
    layer = layer_of(units, 0.5)
    draw = RasterizeUnits(drop_cut=False)
    whole = draw([layer], (220, 220), (0, 0), 1.0)[0][0]
    want = np.zeros_like(whole)
    for number, i in enumerate(chosen, 1):
        want[whole == i + 1] = number
    for part in (take_layer(layer, chosen), layer_of(units.take(chosen), 0.5)):
        np.testing.assert_array_equal(draw([part], (220, 220), (0, 0), 1.0)[0][0], want)
        assert len(part["areas_um2"]) == len(part["centers_um"]) == len(chosen)


def test_layers_of_spots_and_bins_are_restricted_too():
    layer = {"centers_um": np.arange(8.0).reshape(4, 2), "shape": "circle", "size_um": 1.0}
    part = take_layer(layer, np.array([3, 1]))
    np.testing.assert_array_equal(part["centers_um"], [[6, 7], [2, 3]])
    assert part["shape"] == "circle"
    assert layer["centers_um"].shape == (4, 2)


def test_cells_are_as_fine_as_disks_of_their_area():
    assert is_interpolated("polygon", 8.0, 8.0)
    assert not is_interpolated("polygon", 10.0, 8.0)
    assert units_of(polygons()).take(np.array([], int)).area_um2 == pytest.approx(math.pi / 4 * 30**2)
