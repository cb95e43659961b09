from __future__ import annotations

import numpy as np
import pytest

from bundle.inference.tiles import block_px, default_tile_px, margin_px, tile_grid


@pytest.mark.parametrize("align_px", [None, 256])
@pytest.mark.parametrize("tile_px", [1, 128, 300, 5000])
def test_tiles_cover_the_rectangle_once_on_the_slides_grid(tile_px, align_px):
    low, high = (-37.0, 401.5), (900.2, 1111.0)
    covered = np.zeros((2000, 2000), int)
    step = align_px or 128
    spec = {"grid_px": 128, "halo_px": 352, "stride": 4, "align_px": align_px}
    widths = set()
    for tile in tile_grid(low, high, tile_px=tile_px, **spec):
        widths.add(tile.width_px)
        assert tile.x_px % step == tile.y_px % step == tile.width_px % step == tile.height_px % step == 0
        assert tile.margin_px % 128 == 0
        assert tile.margin_px >= 356
        covered[
            tile.y_px + 600 : tile.y_px + 600 + tile.height_px, tile.x_px + 600 : tile.x_px + 600 + tile.width_px
        ] += 1
    assert covered.max() == 1
    assert len(widths) <= 2
    assert max(widths) <= max(round(tile_px / step), 1) * step
    assert (covered[600 + 401 : 600 + 1111, 600 - 37 : 600 + 901] == 1).all()


@pytest.mark.parametrize(("grid_px", "halo_px", "stride"), [(128, 224, 4), (32, 410, 4), (128, 700, 1), (96, 10, 12)])
def test_the_default_tile_is_the_smallest_that_keeps_the_margin_cheap(grid_px, halo_px, stride):
    tile, block = default_tile_px(grid_px, halo_px, stride), block_px(grid_px, stride)
    margin = margin_px(grid_px, halo_px, stride)
    assert tile % block == block % grid_px == block % stride == 0
    assert ((tile + 2 * margin) / tile) ** 2 <= 1.6
    smaller = tile - block
    assert smaller == 0 or ((smaller + 2 * margin) / smaller) ** 2 > 1.6
