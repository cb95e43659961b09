from __future__ import annotations

import numpy as np
import pytest

from bundle.inference.tiles import tile_grid


@pytest.mark.parametrize("tile_px", [1, 128, 300, 5000])
def test_tiles_cover_the_rectangle_once_on_the_slides_grid(tile_px):
    low, high = (-37.0, 401.5), (900.2, 1111.0)
    covered = np.zeros((2000, 2000), int)
    for tile in tile_grid(low, high, tile_px=tile_px, grid_px=128, halo_px=352, stride=4):
        assert tile.x_px % 128 == tile.y_px % 128 == tile.width_px % 128 == tile.height_px % 128 == 0
        assert tile.margin_px % 128 == 0
        assert tile.margin_px >= 356
        covered[
            tile.y_px + 500 : tile.y_px + 500 + tile.height_px, tile.x_px + 500 : tile.x_px + 500 + tile.width_px
        ] += 1
    assert covered.max() == 1
    assert (covered[500 + 401 : 500 + 1111, 500 - 37 : 500 + 901] == 1).all()
