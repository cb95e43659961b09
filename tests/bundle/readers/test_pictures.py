"""Pictures of any kind become slides: in place where tiles can be read, else a pyramid that is written once."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from bundle.errors import InputError
from bundle.importing.prepare import preparation_tools
from bundle.readers.pictures import as_slide, is_plain_picture


@pytest.fixture(scope="module")
def reader():
    return preparation_tools().reader


@pytest.fixture(scope="module")
def pixels(specimen) -> np.ndarray:
    return specimen.picture


def read(slide, reader) -> np.ndarray:
    opened = reader.open(str(slide.path), slide.mpp)
    width, height = opened.level_dimensions[0]
    return opened.read_region(0, 0, width, height, opened.mpp).astype(int)


@pytest.mark.parametrize(
    "name",
    ["p.jpg", "progressive.jpg", "p.png", "rgba.png", "palette.png", "interlaced.png", "p.jp2", "p.bmp", "cmyk.jpg"],
)
def test_plain_pictures_are_rewritten_with_their_pixels(tmp_path, reader, pixels, name):
    path, picture = tmp_path / name, Image.fromarray(pixels)
    exact = 4.0
    if name == "rgba.png":
        alpha = np.full(pixels.shape[:2], 255, np.uint8)
        alpha[:100] = 0
        Image.fromarray(np.dstack([pixels, alpha])).save(path, compress_level=1)
        pixels = pixels.copy()
        pixels[:100] = 255
    elif name == "palette.png":
        picture.quantize(256).save(path)
        exact = 8.0
    elif name == "cmyk.jpg":
        picture.convert("CMYK").save(path, quality=95)
        exact = 8.0
    elif name == "p.jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0))
    else:
        picture.save(path, **({"quality": 95, "progressive": name != "p.jpg"} if name.endswith("jpg") else {}))
    assert is_plain_picture(path)
    slide = as_slide(path, tmp_path / "out" / "s.tif", reader, 0.5)
    assert slide.rewritten
    assert slide.mpp == 0.5
    assert np.abs(read(slide, reader) - pixels).mean() < exact
    with tifffile.TiffFile(slide.path) as tiff:
        assert tiff.pages.first.is_tiled
        assert len(tiff.pages) > 1
    written = slide.path.stat().st_mtime_ns
    assert as_slide(path, tmp_path / "out" / "s.tif", reader, 0.5).path.stat().st_mtime_ns == written
    assert as_slide(path, tmp_path / "out" / "s.tif", reader, 0.6).path.stat().st_mtime_ns > written


@pytest.mark.parametrize("kind", ["strips", "deflate strips", "flat planes", "palette"])
def test_tiffs_in_strips_are_rewritten(tmp_path, reader, pixels, kind):
    path = tmp_path / "s.tif"
    options = {"photometric": "rgb", "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "metadata": None}
    if kind == "flat planes":
        tifffile.imwrite(path, pixels.transpose(2, 0, 1), planarconfig="separate", **options)
    elif kind == "palette":
        Image.fromarray(pixels).quantize(256).save(path, dpi=(50_800, 50_800))
    else:
        tifffile.imwrite(path, pixels, compression="zlib" if "deflate" in kind else None, rowsperstrip=64, **options)
    slide = as_slide(path, tmp_path / "out.tif", reader)
    assert (slide.rewritten, slide.path) == (True, tmp_path / "out.tif")
    assert slide.mpp == pytest.approx(0.5, rel=1e-3)
    assert np.abs(read(slide, reader) - pixels).mean() < 8


@pytest.mark.parametrize("subifds", [False, True])
def test_tiles_are_read_in_place(tmp_path, reader, pixels, write_slide, subifds):
    path = write_slide(tmp_path / "s.tif", pixels, 0.5, subifds=subifds)
    slide = as_slide(path, tmp_path / "out.tif", reader)
    assert (slide.rewritten, slide.path) == (False, path)
    assert not (tmp_path / "out.tif").exists()


def test_a_plain_picture_asks_for_its_scale(tmp_path, reader, pixels):
    Image.fromarray(pixels).save(tmp_path / "p.png", compress_level=1)
    with pytest.raises(InputError, match=r"does not say how many micrometres .* Give --mpp"):
        as_slide(tmp_path / "p.png", tmp_path / "s.tif", reader)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_grey_pictures_are_named_as_such(tmp_path, reader, pixels, mode):
    grey = Image.fromarray(pixels).convert("L")
    if mode == "I;16":
        grey = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    (grey.convert("RGB") if mode == "RGB" else grey).save(tmp_path / "g.png", compress_level=1)
    with pytest.raises(InputError, match="is a grey picture and no H&E"):
        as_slide(tmp_path / "g.png", tmp_path / "s.tif", reader, 0.5)


def test_fluorescence_is_named_as_such(tmp_path, reader):
    tifffile.imwrite(
        tmp_path / "f.ome.tif", np.zeros((2, 64, 64), np.uint16), metadata={"Channel": {"Name": ["DAPI", "PolyT"]}}
    )
    with pytest.raises(ValueError, match="is no H&E"):
        as_slide(tmp_path / "f.ome.tif", tmp_path / "s.tif", reader, 0.5)


def test_a_turned_jpeg_is_read_as_it_is_stored_with_a_message(tmp_path, reader, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "p.jpg", exif=exif)
    slide = as_slide(tmp_path / "p.jpg", tmp_path / "s.tif", reader, 0.5)
    assert read(slide, reader).shape == pixels.shape
    assert any("tagged as to be turned" in message for message in slide.found)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_large_picture_is_not_held_in_memory(tmp_path, reader, ending):
    path = tmp_path / f"large.{ending}"
    rows = np.linspace(0, 60, 4000)[:, None, None] + np.array([180, 120, 160])
    image = np.broadcast_to(rows, (4000, 5000, 3)).astype(np.uint8)
    Image.fromarray(image).save(path, **({"compress_level": 1} if ending == "png" else {}))
    tracemalloc.start()
    slide = as_slide(path, tmp_path / "s.tif", reader, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * image.nbytes  # 36 of 60 MB: one band of rows, and no whole picture
    opened = reader.open(str(slide.path))
    assert (
        np.abs(opened.read_region(4000, 3000, 100, 100, opened.mpp).astype(int) - image[3000:3100, 4000:4100]).max() < 4
    )


@pytest.mark.parametrize(
    ("factor", "says"), [(2.54, "pixels per cm are labelled as per inch"), (10, "ten times too large")]
)
def test_tags_that_no_scanner_gives_are_doubted(tmp_path, reader, pixels, write_slide, caplog, factor, says):
    path = write_slide(tmp_path / f"s{factor:g}.tif", pixels, 0.5 * factor)
    with caplog.at_level(logging.WARNING):
        as_slide(path, tmp_path / "out.tif", reader)
    assert says in caplog.text


def test_a_damaged_picture_is_reported_and_leaves_nothing(tmp_path, reader, pixels):
    path = tmp_path / "p.jpg"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"p\.jpg cannot be decoded"):
        as_slide(path, tmp_path / "out" / "s.tif", reader, 0.5)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.real
def test_a_real_scanners_slide_is_read_in_place(real_data: Path, tmp_path: Path, reader) -> None:
    slide = as_slide(real_data / "wsi" / "CMU-1-Small-Region.svs", tmp_path / "s.tif", reader)
    assert not slide.rewritten
    assert slide.mpp == pytest.approx(0.499)
