from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from bundle.errors import InputError
from bundle.writers.tiff_pyramid import write_pyramid

MPP = 0.4567
SHAPE = (2301, 1207, 3)  # odd, no multiple of a tile, two reduced levels
LEVELS = [(2301, 1207), (1151, 604), (576, 302)]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (24, 13, 3), dtype=np.uint8)
    smooth = np.kron(small, np.ones((100, 100, 1), np.uint8))
    return np.ascontiguousarray(smooth[: SHAPE[0], : SHAPE[1]])


class Lazy:
    """Renders on demand and remembers the largest read."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.shape, self.largest_px = image, image.shape, 0

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        block = self.image[index]
        self.largest_px = max(self.largest_px, *block.shape[:2])
        return block


def brute_halves(image: np.ndarray, level: int) -> np.ndarray:
    for _ in range(level):
        padded = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        h, w = padded.shape[:2]
        image = np.floor(padded.reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)) + 0.5).astype(np.uint8)
    return image


@pytest.mark.parametrize("tile_px", [256, 512])
def test_lossless_levels_are_two_by_two_means(tmp_path: Path, image: np.ndarray, tile_px: int) -> None:
    path = write_pyramid(tmp_path / "s.tif", image, MPP, compression="deflate", tile_px=tile_px)
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == LEVELS
        for level, page in enumerate(tiff.pages):
            np.testing.assert_array_equal(page.asarray(), brute_halves(image, level))
            assert page.tile == (tile_px, tile_px)


def test_tifffile_sees_one_pyramid_with_mpp(tmp_path: Path, image: np.ndarray) -> None:
    path = write_pyramid(tmp_path / "s.tif", image, MPP, description="a test")
    with tifffile.TiffFile(path) as tiff:
        assert [level.shape[:2] for level in tiff.series[0].levels] == LEVELS
        assert tiff.pages[0].tags["ImageDescription"].value == "a test"
        assert [int(page.tags["NewSubfileType"].value) for page in tiff.pages] == [0, 1, 1]
        for level, page in enumerate(tiff.pages):
            count, per = page.tags["XResolution"].value
            assert page.tags["ResolutionUnit"].value == 3
            assert 1e4 * per / count == pytest.approx(MPP * 2**level, rel=1e-6)


def test_openslide_reads_levels_mpp_and_pixels(tmp_path: Path, image: np.ndarray) -> None:
    openslide = pytest.importorskip("openslide")
    slide = openslide.OpenSlide(write_pyramid(tmp_path / "s.tif", image, MPP))
    assert [size[::-1] for size in slide.level_dimensions] == LEVELS
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP, rel=1e-4)
    assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(MPP, rel=1e-4)
    read = np.asarray(slide.read_region((0, 0), 2, LEVELS[2][::-1]))[..., :3]
    assert np.abs(read.astype(float) - brute_halves(image, 2)).mean() < 3


def test_cucim_reads_levels_mpp_and_pixels(tmp_path: Path, image: np.ndarray) -> None:
    cucim = pytest.importorskip("cucim")
    slide = cucim.CuImage(str(write_pyramid(tmp_path / "s.tif", image, MPP)))
    assert [tuple(size)[::-1] for size in slide.resolutions["level_dimensions"]] == LEVELS
    spacing = dict(zip(slide.dims, slide.spacing(), strict=True))
    units = dict(zip(slide.dims, slide.spacing_units(), strict=True))
    assert units["X"] == units["Y"] == "micrometer"
    assert spacing["X"] == spacing["Y"] == pytest.approx(MPP, rel=1e-4)
    for level in range(3):
        read = np.asarray(slide.read_region((0, 0), LEVELS[level][::-1], level))
        assert np.abs(read.astype(float) - brute_halves(image, level)).mean() < 3


def test_jpeg_keeps_saturated_chroma(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255  # 4:2:0 would mix red and blue into purple
    write_pyramid(tmp_path / "s.tif", stripes, 0.5, quality=100)
    assert np.abs(tifffile.imread(tmp_path / "s.tif").astype(int) - stripes).max() < 16


def test_streaming_source_equals_array_and_is_read_in_blocks(tmp_path: Path, image: np.ndarray) -> None:
    lazy = Lazy(image)
    a = write_pyramid(tmp_path / "a.tif", image, MPP).read_bytes()
    b = write_pyramid(tmp_path / "b.tif", lazy, MPP).read_bytes()
    assert a == b
    assert lazy.largest_px <= 1024


@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 1025, 3), (1024, 3, 3)])
def test_small_and_thin_images(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    path = write_pyramid(tmp_path / "s.tif", image, 1.0, compression="lzw")
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(tiff.pages[0].asarray(), image)
        assert max(tiff.pages[-1].shape[:2]) <= 1024


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"image": np.zeros((8, 8, 4), np.uint8)}, "without alpha"),
        ({"image": np.zeros((8, 8, 3), np.uint16)}, "uint8"),
        ({"mpp": 0.0}, "mpp"),
        ({"mpp": float("nan")}, "mpp"),
        ({"tile_px": 100}, "tile_px"),
        ({"quality": 0}, "quality"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(tmp_path: Path, bad: dict, words: str) -> None:
    arguments = {"image": np.zeros((8, 8, 3), np.uint8), "mpp": 0.5, **bad}
    with pytest.raises(InputError, match=words):
        write_pyramid(tmp_path / "s.tif", **arguments)
    assert list(tmp_path.iterdir()) == []
