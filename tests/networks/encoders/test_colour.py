from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from networks import ColourEncoder, FrozenFeatures
from transforms.stain import HEStain


def _image(side: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0)).float()


def test_a_mean_over_cells_is_the_mean_over_pixels():
    image = _image()
    fine, middle, coarse = ColourEncoder((4, 16, 32))(image)
    torch.testing.assert_close(F.avg_pool2d(fine, 4), middle)
    torch.testing.assert_close(F.avg_pool2d(fine, 8), coarse)
    torch.testing.assert_close(fine[:, :3], F.avg_pool2d(image.clamp(min=255 / 256) / 255, 4))
    assert fine.shape[1] == ColourEncoder().channels[0]


def test_the_networks_intensity_scale_changes_nothing():
    mean, std = (185.0, 145.0, 180.0), (45.0, 50.0, 40.0)
    scaled = (_image() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for plain, own in zip(ColourEncoder()(_image()), ColourEncoder(mean=mean, std=std)(scaled), strict=True):
        torch.testing.assert_close(plain, own, rtol=1e-4, atol=1e-5)


def test_more_haematoxylin_is_more_haematoxylin():
    """Amounts are those of `HEStain`."""
    grey = torch.full((3, 32, 32), 200.0)
    more = torch.as_tensor(HEStain(alpha=(1.5, 1, 1))(grey)).float()
    (before,), (after,) = (ColourEncoder((32,))(image[None])[0][..., 0, 0] for image in (grey, more))
    assert after[3] == pytest.approx(1.5 * float(before[3]), rel=1e-3)
    assert np.allclose(after[4:6], before[4:6], atol=2e-3)
    assert (after[16:21] >= before[16:21]).all()  # shares above thresholds


def test_a_tile_with_its_margin_is_the_whole():
    filters = FrozenFeatures(ColourEncoder((4, 16, 32)), context_px=96)
    image, halo = _image(640), filters.halo_px
    halo = -(-halo // filters.grid_px) * filters.grid_px
    side = filters.grid_px + 2 * halo
    whole, tile = filters.features(image), filters.features(image[..., 64 : 64 + side, 64 : 64 + side])
    at, n = (64 + halo) // 4, filters.grid_px // 4
    own = tile[..., halo // 4 : halo // 4 + n, halo // 4 : halo // 4 + n]
    torch.testing.assert_close(own, whole[..., at : at + n, at : at + n])


def test_strides_that_do_not_nest_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        ColourEncoder((4, 6))
