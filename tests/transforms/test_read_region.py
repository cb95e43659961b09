from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms import ReadRegion, ReadRegionD, ReadRegiond, ReadRegionDict, SlideError, SlideReader


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory, write_slide):
    image = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    return write_slide(tmp_path_factory.mktemp("slides") / "a.tif", image, 0.5)


@pytest.mark.parametrize("region", [(0, 0, 40, 30), (17, 9, 33, 41), (-6, -4, 20, 20), (500, 500, 8, 8)])
@pytest.mark.parametrize("mpp", [0.5, 0.8, 1.0])
def test_pixels_and_place(slide_path, region, mpp):
    image = ReadRegion(mpp)(slide_path, region)
    x, y, width, height = region
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert image.shape == (3, height, width)
    want = SlideReader().open(slide_path).read_region(*region, mpp).transpose(2, 0, 1)
    np.testing.assert_array_equal(image.numpy(), want)
    assert image.meta["mpp"] == mpp
    assert image.meta["origin_um"] == pytest.approx((x * mpp, y * mpp))
    assert image.meta["location"] == (round(y * mpp / 0.5), round(x * mpp / 0.5))
    assert image.meta["filename_or_obj"] == str(slide_path)
    for row, column in ((0, 0), (height - 1, 3)):  # the affine leads from an index to the pixel's centre
        place = (image.affine @ torch.tensor([row, column, 0, 1.0], dtype=torch.float64))[:2].tolist()
        assert place == pytest.approx([(y + row + 0.5) * mpp, (x + column + 0.5) * mpp])


def test_dictionary_form_reads_the_region_and_leaves_the_rest(slide_path):
    sample = {"image": str(slide_path), "region": (3, 4, 20, 10), "patient": "C", "section": "C2", "mpp": None}
    given = dict(sample)
    out = ReadRegiond("image", mpp=1.0)(sample)
    assert sample == given
    assert torch.equal(out["image"], ReadRegion(1.0)(slide_path, (3, 4, 20, 10)))
    assert {k: v for k, v in out.items() if k != "image"} == {k: v for k, v in given.items() if k != "image"}
    assert ReadRegionD is ReadRegionDict is ReadRegiond


def test_the_slide_s_own_mpp_is_the_sample_s_where_it_gives_one(slide_path):
    out = ReadRegiond("image", mpp=1.0)({"image": slide_path, "region": (3, 4, 20, 10), "mpp": 1.0})
    want = SlideReader().open(slide_path).read_level(0, 3, 4, 20, 10)
    np.testing.assert_array_equal(out["image"].numpy(), want.transpose(2, 0, 1))
    assert out["image"].meta["slide_mpp"] == 1.0


def test_missing_keys(slide_path):
    with pytest.raises(ValueError, match='no "region"'):
        ReadRegiond("image", mpp=1.0)({"image": slide_path})
    with pytest.raises(KeyError):
        ReadRegiond("image", mpp=1.0)({"region": (0, 0, 4, 4)})
    assert ReadRegiond("image", mpp=1.0, allow_missing_keys=True)({"x": 1}) == {"x": 1}
    with pytest.raises(ValueError, match="mpp=0"):
        ReadRegion(0)
    with pytest.raises(SlideError, match="No such slide"):
        ReadRegion(1.0)("gone.tif", (0, 0, 4, 4))


def test_pickles_for_workers(slide_path):
    read = ReadRegiond("image", mpp=1.0, reader=SlideReader(("tifffile",)))
    sample = {"image": slide_path, "region": (1, 2, 16, 16)}
    want = read(sample)["image"]
    assert torch.equal(pickle.loads(pickle.dumps(read))(sample)["image"], want)
