from __future__ import annotations

import pickle

import numpy as np

from benchmarks.accuracy.per_slide import EqualisedReader

MEAN, STD = (180.0, 140.0, 170.0), (30.0, 30.0, 20.0)


def test_slides_of_unlike_stain_become_alike_and_the_reader_travels(tmp_path, write_slide):
    rng = np.random.default_rng(0)
    tissue = rng.normal(0, 1, (128, 128, 3))
    for name, mean, std in (("pale", (220, 170, 210), 10), ("dark", (150, 80, 130), 20)):
        pixels = np.clip(np.array(mean) + std * tissue, 0, 255).astype(np.uint8)
        write_slide(tmp_path / f"{name}.tif", pixels, 4.0, compression="deflate")
        reader = pickle.loads(pickle.dumps(EqualisedReader(MEAN, STD)))
        slide = reader.open(tmp_path / f"{name}.tif")
        region = slide.read_region(x_px=0, y_px=0, width_px=128, height_px=128, mpp=slide.mpp)
        np.testing.assert_allclose(region.reshape(-1, 3).mean(0), MEAN, atol=1)
        np.testing.assert_allclose(region.reshape(-1, 3).std(0), STD, atol=1)
        np.testing.assert_array_equal(slide.thumbnail(2048)[0], pixels)


def test_glass_alone_is_as_it_was(tmp_path, write_slide):
    glass = np.full((128, 128, 3), 243, np.uint8)
    slide = EqualisedReader().open(write_slide(tmp_path / "a.tif", glass, 4.0, compression="deflate"))
    np.testing.assert_array_equal(slide.read_region(0, 0, 64, 64, 4.0), glass[:64, :64])
