"""Pooling from the map on disk equals pooling one whole tile in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.data.units import unmeasured_units
from bundle.inference import pool, unit_batches
from bundle.inference.dense_map import create_map
from bundle.inference.lattices import UnitGrid
from bundle.inference.prediction_dataset import UnitSet
from bundle.inference.required_blocks import blocks_of_grid, blocks_of_units
from bundle.inference.tiles import Tile
from bundle.inference.unit_sums import UnitSums
from transforms import RasterizeUnits

MPP, STRIDE, LOW = 1.5, 4, (-256, 256)
PIXELS = 256  # a side, on a slide of which tissue lies well inside the map


class _Tissue:
    """An ellipse of tissue."""

    mpp = 4.0
    stain = np.zeros(3)

    def __init__(self) -> None:
        y, x = np.mgrid[:400, :400] * self.mpp
        self.mask = ((x - 500) / 330) ** 2 + ((y - 900) / 260) ** 2 < 1

    @property
    def bounds_um(self):
        rows, columns = np.nonzero(self.mask)
        return np.array([columns.min(), rows.min()]) * 4.0, np.array([columns.max() + 1, rows.max() + 1]) * 4.0


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "m.zarr"
    high = tuple(v + PIXELS * STRIDE for v in LOW)
    about = {"working_mpp": MPP, "slide_mpp": 1.0}
    dense = create_map(
        path, channels=3, low_px=LOW, high_px=high, stride=STRIDE, block_px=256, about=about, projection=None
    )
    dense.array[:] = np.random.default_rng(0).normal(size=dense.array.shape).astype(np.float32)
    return dense


def _in_memory(dense, units) -> np.ndarray:
    sums = UnitSums(units, 1.0, MPP, STRIDE, RasterizeUnits(drop_cut=False))
    inner = Tile(LOW[0] + STRIDE, LOW[1] + STRIDE, (PIXELS - 2) * STRIDE, (PIXELS - 2) * STRIDE, STRIDE)
    sums.add(inner, torch.from_numpy(dense.array[:])[None])
    return sums.means()


@pytest.mark.parametrize(("shape", "size_um"), [("circle", 60.0), ("square", 9.0), ("square", 2.0), ("circle", 500.0)])
def test_given_units(dense, shape, size_um):
    rng = np.random.default_rng(1)
    steps = np.arange(0, 600, size_um * 1.1)
    grid = np.stack(np.meshgrid(200 + steps, 700 + steps), -1).reshape(-1, 2)
    centers = grid[rng.permutation(len(grid))[:300]]
    units = unmeasured_units(np.arange(len(centers)).astype(str), centers, shape, size_um, "u")
    found = pool(dense, units, RasterizeUnits(drop_cut=False))
    np.testing.assert_allclose(found, _in_memory(dense, units), atol=1e-5)


GRIDS = [
    UnitGrid("square", 2.0, 2.0),
    UnitGrid("square", 6.0, 6.0),
    UnitGrid("square", 7.7, 7.7),
    UnitGrid("square", 16.0, 20.0),
    UnitGrid("square", 55.0, 55.0),
    UnitGrid("circle", 4.0, 9.0, "hex"),
    UnitGrid("circle", 55.0, 100.0, "hex"),
    UnitGrid("circle", 60.0, 60.0),  # its radius is whole: pixel centres lie on the very edge
    UnitGrid("circle", 33.3, 41.7),
    UnitGrid("circle", 180.0, 200.0),
    UnitGrid("square", 16.0, 20.0, "hex"),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("max_units", [1, 3000])
def test_lattices(dense, grid, max_units):
    if max_units == 1 and grid.size_um < 6:
        max_units = 700  # a row a time would take a while
    units = grid.over(_Tissue(), "s")
    bands = list(units.bands(max_units))
    found = np.concatenate([pool(dense, band) for band in bands])
    centers = np.concatenate([band.centers_um for band in bands])
    explicit = unmeasured_units(np.arange(len(centers)).astype(str), centers, grid.shape, grid.size_um, "u")
    np.testing.assert_allclose(found, _in_memory(dense, explicit), atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_half_precision_rounds_and_does_no_more(dense, grid):
    units = grid.over(_Tissue(), "s")
    largest = float(np.abs(dense.array[:]).max())
    for band in units.bands(20_000):
        half = pool(dense, band, dtype=np.float16)
        assert half.dtype == np.float16
        # twice at the most, by half a unit in the last place of what lies beside it
        np.testing.assert_allclose(half, pool(dense, band), atol=largest * 2**-10, rtol=0)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_blocks_of_a_lattice_hold_those_of_its_units(grid):
    units = grid.over(_Tissue(), "s")
    centers = np.concatenate([band.centers_um for band in units.bands(3000)])
    explicit = unmeasured_units(np.arange(len(centers)).astype(str), centers, grid.shape, grid.size_um, "u")
    block_um, margin_um = 50.0, 6.0
    needed = {tuple(b) for b in blocks_of_units(explicit, 1.0, block_um, margin_um)}
    given = {tuple(b) for b in blocks_of_grid(units, block_um, margin_um)}
    assert needed <= given
    low = np.arange(-2, 40)[:, None] * block_um

    def near(at: np.ndarray) -> np.ndarray:
        """Which rows or columns of blocks each unit comes near, (42, units)."""
        gap = np.maximum(low - (at + grid.size_um / 2), (at - grid.size_um / 2) - (low + block_um))
        return (gap < margin_um - 1e-6).astype(np.float32)

    touched = near(centers[:, 1]) @ near(centers[:, 0]).T > 0
    assert {(row - 2, column - 2) for row, column in np.argwhere(touched)} <= needed


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_what_no_unit_needs_is_not_read(dense, grid, tmp_path):
    """Tiles that were not computed are NaN on disk; the units beside them must not notice."""
    units = grid.over(_Tissue(), "s")
    about, side = {"working_mpp": MPP, "slide_mpp": 1.0}, 256
    high = tuple(v + PIXELS * STRIDE for v in LOW)
    part = create_map(
        tmp_path / "m", channels=3, low_px=LOW, high_px=high, stride=STRIDE, block_px=side, about=about, projection=None
    )
    pixels = side // STRIDE
    for row, column in blocks_of_grid(units, side * MPP, STRIDE * MPP):
        y, x = ((at * side - low) // STRIDE for at, low in ((row, LOW[1]), (column, LOW[0])))
        part.array[:, y : y + pixels, x : x + pixels] = dense.array[:, y : y + pixels, x : x + pixels]
    assert np.isnan(part.array[:]).any()
    for band in units.bands(20_000):
        expected = pool(dense, band)
        np.testing.assert_allclose(pool(part, band), expected, atol=1e-6)


@pytest.mark.parametrize("given", [False, True])
def test_what_goes_on_makes_the_same_pieces_whole_and_tells_what_of_them_is_done(dense, monkeypatch, tmp_path, given):
    """A product is rounded as its size has it: a piece that began where a killed process stopped would differ."""
    monkeypatch.setattr(unit_batches, "_UNITS_AT_ONCE", 500)
    units = UnitGrid("square", 16.0, 16.0).over(_Tissue(), "s")
    if given:
        centers = np.concatenate([band.centers_um for band in units.bands(500)])
        units = unmeasured_units(np.arange(len(centers)).astype(str), centers, "square", 16.0, "u")
    rasterize = RasterizeUnits(drop_cut=False)

    def batches(skip: int) -> list[unit_batches.UnitBatch]:
        unit_set = UnitSet(units, tissue_fraction=np.ones(len(units)) if given else None)
        return list(unit_batches.unit_batches(unit_set, dense, 1.0, rasterize, tmp_path, skip))

    whole = batches(0)
    assert len(whole) > 2
    for skip in (1, 499, 500, 733, len(units) - 1):
        resumed = batches(skip)
        left = np.concatenate([batch.names[batch.done :] for batch in resumed])
        np.testing.assert_array_equal(left, np.concatenate([batch.names for batch in whole])[skip:])
        assert [list(a.names) for a in resumed] == [list(a.names) for a in whole[-len(resumed) :]]
        piece = resumed[0].part(2, 5)
        assert (len(piece), piece.done) == (3, max(resumed[0].done - 2, 0))
