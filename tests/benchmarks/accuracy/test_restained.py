from __future__ import annotations

import pickle

import numpy as np
import pytest

from benchmarks.accuracy.per_slide import EqualisedReader
from benchmarks.accuracy.restained import RestainedReader
from transforms import HEStain, SlideReader


@pytest.fixture
def slide(tmp_path, write_slide):
    pixels = np.random.default_rng(0).normal((200, 120, 180), 20, (128, 128, 3))
    return write_slide(tmp_path / "a.tif", np.clip(pixels, 0, 255).astype(np.uint8), 4.0, compression="deflate")


def test_regions_and_small_pictures_are_restained_alike_and_the_reader_travels(slide):
    alpha = [1.5, 0.7, 1.0]
    plain, other = SlideReader().open(slide), pickle.loads(pickle.dumps(RestainedReader(alpha))).open(slide)
    pixels = plain.read_region(0, 0, 128, 128, 4.0)
    expected = HEStain(alpha)(pixels.transpose(2, 0, 1).astype(np.float32)).transpose(1, 2, 0)
    np.testing.assert_allclose(other.read_region(0, 0, 128, 128, 4.0), expected, atol=0.5)
    np.testing.assert_array_equal(other.thumbnail(2048)[0], other.read_region(0, 0, 128, 128, 4.0))
    assert np.abs(expected - pixels).mean() > 10


def test_equalising_brings_it_back_to_the_same_colours(slide):
    readers = (SlideReader(), RestainedReader([1.5, 0.7, 1.0]))
    means = [reader.open(slide).read_region(0, 0, 128, 128, 4.0).mean((0, 1)) for reader in readers]
    assert np.abs(means[0] - means[1]).max() > 5
    equal = [EqualisedReader(reader=r).open(slide).read_region(0, 0, 128, 128, 4.0).mean((0, 1)) for r in readers]
    np.testing.assert_allclose(*equal, atol=1)
