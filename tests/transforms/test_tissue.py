from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms import SlideReader, TissueMask

GLASS, EOSIN, HAEMATOXYLIN = (242, 241, 243), (226, 160, 200), (110, 70, 150)
TINTED, PALE = (232, 215, 230), (225, 190, 212)  # glass of a section with spilt eosin; pale stroma


def slide(*patches: tuple[slice, slice, tuple[int, int, int]], size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Noisy flat colours on glass, uint8 (3, H, W)."""
    image = np.empty((3, *size))
    image[:] = np.array(GLASS)[:, None, None]
    for rows, columns, colour in patches:
        image[:, rows, columns] = np.array(colour)[:, None, None]
    image += np.random.default_rng(0).normal(0, 3, image.shape)
    return image.clip(0, 255).astype(np.uint8)


ALL = slice(None)


@pytest.mark.parametrize("level", [(255, 255, 255), GLASS, TINTED, (225, 224, 220), (0, 0, 0), (128, 128, 128)])
def test_glass_borders_and_dust_hold_no_tissue(level):
    assert not TissueMask()(slide((ALL, ALL, level)), 8.0).any()


@pytest.mark.parametrize("colour", [PALE, EOSIN, HAEMATOXYLIN])
def test_a_picture_full_of_tissue_is_full(colour):
    assert TissueMask()(slide((ALL, ALL, colour)), 8.0).all()
    assert TissueMask()(slide((ALL, ALL, colour), (ALL, slice(80, 160), EOSIN)), 8.0).all()


@pytest.mark.parametrize("ground", [GLASS, TINTED])
def test_finds_the_tissue_to_a_pixel_or_two(ground):
    box = np.s_[30:80, 50:120]
    mask = TissueMask()(slide((ALL, ALL, ground), (*box, EOSIN), (slice(40, 60), slice(60, 90), HAEMATOXYLIN)), 8.0)
    want = np.zeros((120, 160), bool)
    want[box] = True
    assert mask.dtype == bool
    assert mask.shape == (1, 120, 160)
    grown = np.zeros_like(want)
    grown[28:82, 48:122] = True
    assert mask[0, 32:78, 52:118].all()
    assert not (mask[0] & ~grown).any()


@pytest.mark.parametrize(("mpp", "kept"), [(2.0, False), (30.0, True)])
def test_specks_and_holes_count_by_their_area_on_the_slide(mpp, kept):
    speck, hole = np.s_[10:20, 10:20], np.s_[60:70, 90:100]
    image = slide((*speck, EOSIN), (slice(40, 110), slice(60, 150), EOSIN), (*hole, GLASS))
    mask = TissueMask(min_area_um2=10_000)(image, mpp)[0]
    assert mask[speck].any() == kept
    assert (~mask[hole]).any() == kept


def test_array_tensor_and_metatensor_agree():
    image = slide((slice(30, 80), slice(50, 120), EOSIN))
    want = TissueMask()(image, 8.0)
    tensor = TissueMask()(torch.from_numpy(image).float(), 8.0)
    assert tensor.dtype == torch.bool
    np.testing.assert_array_equal(tensor.numpy(), want)
    meta = TissueMask()(MetaTensor(torch.from_numpy(image).float(), meta={"mpp": 8.0}))
    assert meta.meta["mpp"] == 8.0
    np.testing.assert_array_equal(meta.numpy(), want)


def test_misuse_is_reported():
    with pytest.raises(ValueError, match="mpp"):
        TissueMask()(slide())
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        TissueMask()(np.zeros((120, 160, 3)), 8.0)
    with pytest.raises(ValueError, match="floor"):
        TissueMask(floor=10)


@pytest.mark.real
def test_a_real_section(real_data):
    opened = SlideReader().open(real_data / "wsi" / "CMU-1-Small-Region.svs")
    pixels, mpp = opened.thumbnail(400)
    mask = TissueMask()(pixels.transpose(2, 0, 1), mpp)[0]
    brightness = pixels.min(axis=-1)
    assert mask[brightness < 180].mean() > 0.9
    assert mask[brightness > 235].mean() < 0.2
