from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely

from transforms import PolygonLayer, RasterizeUnits, UnitLayer

SIZE = (61, 47)  # rows, columns
DRAW = RasterizeUnits(drop_cut=False)


def layer_of(units: list[list[np.ndarray]], centers: np.ndarray | None = None, mpp: float = 1.0) -> PolygonLayer:
    """A layer of units, each a list of rings in px of `mpp`; centres are the vertices' means unless given."""
    rings = [ring for unit in units for ring in unit]
    if centers is None:
        centers = np.array([np.concatenate(unit).mean(0) for unit in units]).reshape(-1, 2) * mpp
    return PolygonLayer(
        centers,
        "polygon",
        10.0,
        np.ones(len(units)),
        np.concatenate([np.zeros((0, 2)), *rings]),
        mpp,
        np.cumsum([0, *map(len, rings)]),
        np.cumsum([0, *map(len, units)]),
    )


def blob(rng: np.random.Generator, center: np.ndarray, low: float, high: float, n: int = 17) -> np.ndarray:
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    return center + rng.uniform(low, high, (n, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)


def cells(seed: int, n: int = 40, low: float = 4.0, high: float = 8.0) -> list[list[np.ndarray]]:
    """Overlapping cells: some with a hole, some of two parts, some that cross themselves."""
    rng = np.random.default_rng(seed)
    units = []
    for i, center in enumerate(rng.uniform(-5, 65, (n, 2))):
        unit = [blob(rng, center, low, high)]
        if i % 3 == 0:
            unit.append(blob(rng, center, low / 4, low / 2)[::-1])
        if i % 5 == 0:
            unit.append(blob(rng, center + 3 * high, low, high))
        if i % 7 == 0:
            unit.append(rng.uniform(center - low, center + low, (6, 2)))
        units.append(unit)
    return units


def inside(unit: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Even-odd by counting the edges that a ray to the right crosses, one edge at a time."""
    odd = np.zeros(len(points), bool)
    x, y = points.T
    for ring in unit:
        for (xa, ya), (xb, yb) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            spans = (ya > y) != (yb > y)
            odd ^= spans & (x < xa + (y - ya) * (xb - xa) / (yb - ya + (yb == ya)))
    return odd


def brute_force(layer: PolygonLayer, units, size_px, origin_um, mpp) -> np.ndarray:
    """The pixels of each unit whose centre lies in it, bool (U, height, width)."""
    y, x = np.mgrid[: size_px[0], : size_px[1]] + 0.5
    points = np.stack([x.ravel(), y.ravel()], 1) * mpp + origin_um
    return np.array([inside([ring * layer.vertex_mpp for ring in u], points).reshape(size_px) for u in units])


def units_in(mask: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The mask with the units' own numbers in place of 1..n."""
    return np.concatenate([[0], np.flatnonzero(keep) + 1])[mask]


def drawn(layer: PolygonLayer, size_px=SIZE, origin_um=(0.0, 0.0), mpp: float = 1.0) -> np.ndarray:
    mask, (keep,) = DRAW([layer], size_px, origin_um, mpp)
    return units_in(mask[0], keep)


def each(layer: PolygonLayer, size_px=SIZE, origin_um=(0.0, 0.0), mpp: float = 1.0) -> np.ndarray:
    """The pixels of each unit, on whichever mask it is drawn, bool (U, height, width)."""
    found = np.zeros((len(layer.centers_um), *size_px), bool)
    for mask, keep in zip(*DRAW([layer], size_px, origin_um, mpp), strict=True):
        for number, unit in enumerate(np.flatnonzero(keep), 1):
            assert not found[unit].any()
            found[unit] = mask == number
    alone = np.zeros_like(found)
    alone[DRAW.pixels(layer, size_px, origin_um, mpp)] = True
    np.testing.assert_array_equal(found, alone)
    return found


@pytest.mark.parametrize(("seed", "mpp"), itertools.product(range(4), [0.5, 0.83, 1.0]))
def test_each_polygon_has_the_pixels_whose_centre_it_holds(seed, mpp):
    units = cells(seed)
    layer = layer_of(units, mpp=0.7)
    origin_um = (3 * mpp, -4 * mpp)
    want = brute_force(layer, units, SIZE, origin_um, mpp)
    assert want.sum(0).max() > 1
    np.testing.assert_array_equal(each(layer, SIZE, origin_um, mpp), want)


def test_one_polygon_equals_shapely():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for _ in range(50):
        ring = blob(rng, rng.uniform(10, 40, 2), 2, 20)
        want = shapely.contains_xy(shapely.Polygon(ring), x, y)
        np.testing.assert_array_equal(drawn(layer_of([[ring]])) > 0, want)


@pytest.mark.parametrize("mpp", [0.5, 2 / 3, 0.79, 4 / 3])
@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0])
def test_a_pixel_s_unit_does_not_depend_on_the_region(mpp, scale):
    """Also where cells are smaller than a pixel, and where a cell's centre lies outside it."""
    rng = np.random.default_rng(1)
    units = cells(1, n=60, low=4 * scale, high=8 * scale)
    layer = layer_of(units, np.array([u[0].mean(0) for u in units]) + rng.uniform(-6, 6, (60, 2)) * scale)
    whole = each(layer, SIZE, (-3 * mpp, 5 * mpp), mpp)
    assert whole.any()
    for x0, y0, width, height in [(0, 0, 20, 30), (13, 17, 1, 1), (20, 31, 27, 30), (11, 9, 7, 8), (30, 2, 3, 50)]:
        part = each(layer, (height, width), ((x0 - 3) * mpp, (y0 + 5) * mpp), mpp)
        np.testing.assert_array_equal(part, whole[:, y0 : y0 + height, x0 : x0 + width])


@pytest.mark.parametrize("mpp", [0.27, 0.5, 4 / 3])
def test_a_partition_covers_every_pixel_once(mpp):
    """Neighbours share their edges, listed in opposite directions, with vertices that fall on pixel centres too."""
    rng = np.random.default_rng(2)
    corner = np.stack(np.meshgrid(np.arange(9.0), np.arange(8.0)), -1) * 7.5
    corner[1:-1, 1:-1] += np.round(rng.uniform(-3, 3, (6, 7, 2)) * 2) / 2
    units = []
    for r, c in itertools.product(range(7), range(8)):
        a, b, d, e = corner[r, c], corner[r, c + 1], corner[r + 1, c + 1], corner[r + 1, c]
        for triangle in ([a, b, e], [b, d, e]):
            units.append([np.array(triangle)[:: 1 if rng.random() < 0.5 else -1]])
    layer = layer_of(units, mpp=mpp)
    side = (int(52.5), 60)  # the rectangle is 60 x 52.5 px of mpp
    mask = drawn(layer, side, (0, 0), mpp)
    assert (mask > 0).all()
    alone = sum((drawn(layer_of([u], mpp=mpp), side, (0, 0), mpp) > 0).astype(int) for u in units)
    # One alone takes its home pixel when it covers none; all of these cover some.
    np.testing.assert_array_equal(alone, 1)


@pytest.mark.parametrize("mpp", [0.1, 0.27, 0.5, 0.83, 1.0])
def test_squares_given_as_polygons_are_squares(mpp):
    """Edges on pixel centres included: both shapes are half-open there."""
    x, y = np.meshgrid(*[np.arange(-1, 12) * 5 * mpp + 2.5 * mpp] * 2)
    centers = np.stack([x.ravel(), y.ravel()], 1)
    for size in (5 * mpp, 3 * mpp, 2.2 * mpp, 0.4 * mpp):
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2
        layer = layer_of([[c + square] for c in centers], centers)
        mask, (keep,) = DRAW([UnitLayer(centers, "square", size)], SIZE, (0, 0), mpp)
        np.testing.assert_array_equal(drawn(layer, SIZE, (0, 0), mpp), units_in(mask[0], keep))


@pytest.mark.parametrize("mpp", [0.1, 0.2, 0.27, 0.83, 4 / 3])
def test_edges_on_pixel_centres_give_all_cells_the_same_pixels(mpp):
    """Three-pixel squares from half a pixel on: rounding must not widen or narrow any, nor open a gap."""
    corner = np.stack(np.meshgrid(*[np.arange(20) * 3 + 0.5] * 2), -1).reshape(-1, 2)
    square = np.array([[0, 0], [3, 0], [3, 3], [0, 3]])
    layer = layer_of([[(c + square) * mpp] for c in corner])
    np.testing.assert_array_equal(np.bincount(drawn(layer, (62, 62), (0, 0), mpp).ravel())[1:], 9)


def test_the_way_round_and_the_first_vertex_do_not_matter():
    units = cells(3)
    rng = np.random.default_rng(0)
    layer = layer_of(units)
    other = [[np.roll(ring, rng.integers(9), 0)[:: rng.choice([-1, 1])] for ring in unit] for unit in units]
    np.testing.assert_array_equal(each(layer), each(layer_of(other, layer.centers_um)))


@pytest.mark.parametrize("axis", [0, 1])
def test_flipping_the_outlines_flips_the_mask(axis):
    units = cells(4)
    layer = layer_of(units)
    extent = np.array(SIZE[::-1], float)

    def flip(points: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[:, 1 - axis] = extent[1 - axis] - out[:, 1 - axis]
        return out

    flipped = layer_of([[flip(ring) for ring in unit] for unit in units], flip(layer.centers_um))
    np.testing.assert_array_equal(each(flipped), np.flip(each(layer), 1 + axis))


def test_a_cell_s_pixels_add_up_over_tiles_to_its_area():
    units = [
        [blob(np.random.default_rng(i), np.array([20 + 30 * (i % 3), 20 + 30 * (i // 3)]), 9, 14, 40)] for i in range(9)
    ]
    layer = layer_of(units)
    mpp = 0.1
    total = np.zeros(10, int)
    for x, y in itertools.product(range(0, 1000, 250), repeat=2):
        total += np.bincount(drawn(layer, (250, 250), (x * mpp, y * mpp), mpp).ravel(), minlength=10)
    for number, (ring,) in enumerate(units, 1):
        x, y = ring.T
        area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
        assert total[number] * mpp**2 == pytest.approx(area, rel=0.005)


def test_a_cell_that_covers_no_pixel_centre_has_its_own_pixel():
    dot = np.array([[0, 0], [0.2, 0], [0.1, 0.2]])
    big = np.array([[10.0, 10], [20, 10], [20, 20], [10, 20]])
    at = np.array([[3.1, 3.1], [3.7, 3.7], [12.1, 12.1], [5.05, 7.1]])
    layer = layer_of([[dot + at[0]], [dot + at[1]], [big], [dot + at[2]], [dot + at[3]]])
    found = each(layer, (30, 30))
    np.testing.assert_array_equal(found.sum((1, 2)), [1, 1, 100, 1, 1])
    assert found[[0, 1], 3, 3].all()
    assert found[3, 12, 12]
    assert found[4, 7, 5]


@pytest.mark.parametrize("axes", [[0, 1], [1, 0]])
def test_a_cell_around_its_own_centre_does_not_take_the_pixel_there(axes):
    """The centre of a cell of two parts lies between them, in a tile that may hold neither, nor any row of them."""
    bar = np.array([[0, 0], [30, 0], [30, 4], [0, 4]])
    layer = layer_of([[bar[:, axes], bar[:, axes] + np.array([0, 26])[axes]]], np.array([[15.0, 15.0]]))
    mask, (keep,) = DRAW([layer], (10, 10), (10, 10), 1.0)
    assert not keep.any()
    assert not mask.any()


def test_only_rows_of_the_region_are_drawn(monkeypatch):
    """A wrong outline may be millions of pixels tall; the work does not grow with it."""
    counts = []
    crossings = PolygonLayer._crossings

    def counted(*args):
        found = crossings(*args)
        counts.append(len(found[0]))
        return found

    monkeypatch.setattr(PolygonLayer, "_crossings", counted)
    tall = np.array([[10.0, 10], [20, 10], [20, 1e7], [10, 1e7]])
    layer = layer_of([[tall], [tall + np.array([5.0, -2e6])]], np.array([[15.0, 15.0], [20.0, 5.0]]))
    found = each(layer, (40, 50))
    assert found[0, 10:, 10:20].all()
    assert found[0].sum() == 30 * 10
    assert found[1].sum() == 40 * 10
    assert sum(counts) < 1000


def test_cut_cells_are_dropped_and_whole_ones_kept():
    units = cells(5)
    layer = layer_of(units)
    low = np.array([np.concatenate(u).min(0) for u in units]) - (2, 3)
    high = np.array([np.concatenate(u).max(0) for u in units]) - (2, 3)
    whole = ((low >= 0) & (high <= SIZE[::-1])).all(1)
    want = each(layer, SIZE, (2, 3))
    masks, keeps = RasterizeUnits()([layer], SIZE, (2, 3), 1.0)
    np.testing.assert_array_equal(np.sum(keeps, 0), whole & want.any((1, 2)))
    assert 0 < whole.sum() < len(units)
    for mask, keep in zip(masks, keeps, strict=True):
        for number, unit in enumerate(np.flatnonzero(keep), 1):
            np.testing.assert_array_equal(mask == number, want[unit])


def test_nothing_to_draw_is_an_empty_mask():
    mask, (keep,) = DRAW([layer_of([])], SIZE, (0, 0), 1.0)
    assert mask.shape == (1, *SIZE)
    assert not mask.any()
    assert keep.shape == (0,)


def test_malformed_layers_are_refused():
    layer = layer_of(cells(0, n=3))
    good = dict(vars(layer))
    DRAW([good], SIZE, (0, 0), 1.0)
    bad = {
        "unit_offsets": good["unit_offsets"][:-1],
        "ring_offsets": good["ring_offsets"] + 1,
        "vertices_px": good["vertices_px"][:-1],
        "areas_um2": np.ones(2),
    }
    for key, value in bad.items():
        with pytest.raises(ValueError, match=r"Layer 0: .*(unit_offsets|areas_um2)"):
            DRAW([{**good, key: value}], SIZE, (0, 0), 1.0)
    del good["ring_offsets"]
    with pytest.raises(ValueError, match="ring_offsets"):
        DRAW([good], SIZE, (0, 0), 1.0)
