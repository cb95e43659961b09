"""Every layout of a TIFF, every compression, every backend, one thread and four: the file's own pixels or a refusal."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from transforms import Slide

INSTALLED = [b for b in ("cucim", "tifffile", "openslide") if importlib.util.find_spec(b)]
HEIGHT, WIDTH = 203, 277  # every halving of them rounds
EVERY = [
    "none",
    "lzw",
    "deflate",
    "old deflate",
    "zstd",
    "packbits",
    "lzma",
    "jpeg 420",
    "jpeg 422",
    "jpeg 444",
    "jpeg rgb",
]
EVERY += ["jpeg 2000", "aperio rgb", "webp", "jpeg xl", "png"]
SOME = ["none", "lzw", "deflate", "jpeg 420"]
RAW = ["none", "lzw", "deflate", "zstd", "webp"]
PROVED = {"none", "deflate", "old deflate", "jpeg 420", "jpeg 422", "jpeg 444", "jpeg rgb", "aperio rgb"}
# Layout: what is written, how, and with which compressions.
LAYOUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tiles": ({}, EVERY),
    "pyramid in pages": ({"levels": 3}, SOME),
    "pyramid in SubIFDs": ({"levels": 3, "subifds": True}, SOME),
    "even pyramid": ({"levels": 3, "even": True}, SOME),
    "BigTIFF": ({"bigtiff": True}, SOME),
    "big-endian": ({"byteorder": ">"}, SOME),
    "small tiles": ({"tile": (16, 16)}, SOME),
    "tiles of 48 px": ({"tile": (48, 48)}, ["none", "jpeg 444"]),
    "tiles that are not square": ({"tile": (128, 32)}, SOME),
    "a tile larger than the picture": ({"tile": (512, 512)}, SOME),
    "strips": ({"strip": 16}, [*EVERY]),
    "strips of odd height": ({"strip": 7, "levels": 2}, ["none", "lzw"]),
    "one strip": ({"strip": HEIGHT}, ["none", "lzw", "deflate", "jpeg 420"]),
    "separate planes": ({"planar": True}, ["none", "lzw", "deflate", "zstd", "jpeg 444"]),
    "separate planes in strips": ({"planar": True, "strip": 16}, ["none", "lzw"]),
    "alpha": ({"alpha": "unassalpha"}, RAW),
    "alpha in strips": ({"alpha": "unassalpha", "strip": 16}, RAW),
    "alpha in one strip": ({"alpha": "unassalpha", "strip": HEIGHT}, ["none"]),
    "alpha in a separate plane": ({"alpha": "unassalpha", "planar": True}, ["none", "lzw"]),
    "premultiplied alpha": ({"alpha": "assocalpha", "levels": 2}, ["none", "lzw"]),
    "a fourth sample": ({"alpha": "unspecified"}, ["none", "lzw"]),
    "palette": ({"palette": True}, ["none", "lzw", "deflate"]),
    "palette of 8 bits": ({"palette": True, "colormap scale": 1}, ["none", "lzw"]),
    "palette in strips": ({"palette": True, "strip": 16}, ["none", "lzw"]),
    "tiles never written": ({"skip": True, "levels": 2}, [*RAW, "jpeg 420"]),
    "planes never written": ({"skip": True, "planar": True}, ["none", "lzw"]),
    "predictor": ({"predictor": 2, "levels": 2}, ["lzw", "deflate", "zstd", "packbits"]),
    "predictor in strips": ({"predictor": 2, "strip": 16}, ["lzw", "deflate"]),
}


def picture() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([160 + 80 * np.sin(x / 19), 120 + 60 * np.cos(y / 17), 170 + 70 * np.sin((x + y) / 23)], axis=-1)
    return (smooth + np.random.default_rng(0).integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8)


def codec(compression: str) -> dict[str, Any]:
    kind, _, how = compression.partition(" ")
    if kind == "jpeg" and how in ("420", "422", "444"):
        return {"compression": 7, "subsampling": {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[how]}
    number = {"none": None, "lzw": 5, "deflate": 8, "old deflate": 32946, "zstd": 50000, "packbits": 32773}
    number |= {"lzma": 34925, "jpeg 2000": 34712, "aperio rgb": 33005, "webp": 50001, "jpeg xl": 50002, "png": 34933}
    lossless = {"compressionargs": {"lossless": True}} if compression in ("webp", "jpeg xl") else {}
    return {"compression": number.get(compression, 7), **lossless}


def tiles_of(level: np.ndarray, tile: tuple[int, int], compression: str, skip: bool) -> Iterator[Any]:
    """Tiles of (h, w, s) or (s, h, w), every third left out if `skip`; JPEG whose samples are RGB, as Aperio's are."""
    planes = list(level) if level.shape[0] < 5 else [level]
    number = 0
    for plane in planes:
        for y in range(0, plane.shape[0], tile[0]):
            for x in range(0, plane.shape[1], tile[1]):
                part = plane[y : y + tile[0], x : x + tile[1]]
                padding = [(0, tile[0] - part.shape[0]), (0, tile[1] - part.shape[1]), (0, 0)][: part.ndim]
                part = np.ascontiguousarray(np.pad(part, padding, mode="edge"))
                number += 1
                if compression == "jpeg rgb":
                    part = imagecodecs.jpeg_encode(part, level=90, colorspace="rgb", outcolorspace="rgb")
                yield None if skip and number % 3 == 0 else part


def write(path: Path, compression: str, how: dict[str, Any]) -> list[np.ndarray]:
    """Write the picture in a layout; the levels that must be read, uint8 RGB on white."""
    rgb = picture()[:200, :272] if how.get("even") else picture()
    image, options = rgb, {"photometric": "rgb", "metadata": None, **codec(compression)}
    if "alpha" in how:
        alpha = np.random.default_rng(1).integers(0, 256, rgb.shape[:2], dtype=np.uint8)
        alpha[:, :90], alpha[:80, 90:] = 0, 255
        options["extrasamples"] = [how["alpha"]]
        share = alpha[..., None] / 255
        colors = np.rint(rgb * share).astype(np.uint8) if how["alpha"] == "assocalpha" else rgb
        image = np.dstack([colors, alpha])
        if how["alpha"] == "assocalpha":
            rgb = colors + (255 - alpha[..., None])
        elif how["alpha"] == "unassalpha":
            rgb = np.floor(rgb * share + 0.5 - 1e-9).astype(np.uint8) + (255 - alpha[..., None])
    if how.get("palette"):
        colors = np.random.default_rng(2).integers(0, 256, (3, 256), dtype=np.uint16)
        options |= {"photometric": "palette", "colormap": colors * how.get("colormap scale", 257)}
        image = rgb[..., 0]
        rgb = colors.astype(np.uint8).T[image]
    tile = how.get("tile", (64, 64))
    options |= {"rowsperstrip": how["strip"]} if "strip" in how else {"tile": tile}
    if "predictor" in how:
        options["predictor"] = how["predictor"]
    want = []
    with tifffile.TiffWriter(path, bigtiff=how.get("bigtiff", False), byteorder=how.get("byteorder", "<")) as tiff:
        for i in range(how.get("levels", 1)):
            level = np.ascontiguousarray(image[:: 2**i, :: 2**i])
            truth = rgb[:: 2**i, :: 2**i].copy()
            if how.get("planar"):
                options["planarconfig"], level = "separate", np.ascontiguousarray(level.transpose(2, 0, 1))
            if how.get("subifds"):
                options["subifds"] = how["levels"] - 1 if i == 0 else None
            if how.get("skip") or compression == "jpeg rgb":
                parts = tiles_of(level, tile, compression, how.get("skip", False))
                tiff.write(parts, shape=level.shape, dtype=np.uint8, subfiletype=int(i > 0), **options)
                if how.get("skip"):
                    _whiten(truth, tile, separate=how.get("planar", False))
            else:
                tiff.write(level, subfiletype=int(i > 0), **options)
            want.append(truth)
    if compression == "jpeg rgb":
        with tifffile.TiffFile(path, mode="r+b") as tiff:  # tifffile tags all JPEG as YCbCr
            tiff.pages[0].tags["PhotometricInterpretation"].overwrite(2)
    if compression.startswith("jpeg ") and compression != "jpeg xl" and compression != "jpeg 2000":
        with tifffile.TiffFile(path) as tiff:
            for i, level in enumerate(tiff.series[0].levels):
                lossy = level.asarray()
                lossy = lossy.transpose(1, 2, 0) if how.get("planar") else lossy
                want[i] = np.where(want[i] == 255, want[i], lossy) if how.get("skip") else lossy
    return want


def _whiten(truth: np.ndarray, tile: tuple[int, int], separate: bool) -> None:
    number = 0
    for channels in ([0], [1], [2]) if separate else ([0, 1, 2],):
        for y in range(0, truth.shape[0], tile[0]):
            for x in range(0, truth.shape[1], tile[1]):
                number += 1
                if number % 3 == 0:
                    truth[y : y + tile[0], x : x + tile[1], channels] = 255


def takes(backend: str, layout: str, compression: str) -> bool | None:
    """Whether a backend must read a layout, or must refuse it; None if either will do."""
    how = LAYOUTS[layout][0]
    if backend == "tifffile":
        return True
    if set(how) & {"strip", "planar", "predictor"} or how.get("alpha") == "unspecified":
        return False
    if backend == "cucim":
        return compression in PROVED and not set(how) & {"alpha", "palette", "skip", "subifds"}
    return None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_backend_gives_the_file_s_pixels_or_none(tmp_path, layout):
    how, compressions = LAYOUTS[layout]
    for compression in compressions:
        if "strip" in how and compression == "jpeg rgb":
            continue
        path = tmp_path / f"{compression}.tif"
        want = write(path, compression, how)
        for backend in INSTALLED:
            must = takes(backend, layout, compression)
            slide = Slide(path, 0.5, (backend,))
            reads = slide.backend == backend
            assert must is None or reads == must, (layout, compression, backend)
            if not reads:
                assert slide.backend == "tifffile"
                continue
            for threads in (1, 4):
                wrong = compare(slide, want, "alpha" in how, threads)
                assert not wrong, (layout, compression, backend, threads, wrong[:3])


def compare(slide: Slide, want: list[np.ndarray], has_alpha: bool, threads: int) -> list[Any]:
    """Read random rectangles of random levels at once; those that differ."""
    truth = {level.shape[1::-1]: level for level in want}
    wrong: list[Any] = []
    tolerance = 1 if slide.backend == "openslide" and has_alpha else 0
    if slide.backend != "openslide":
        assert slide.level_dimensions == list(truth)

    def go(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(12):
            number = int(rng.integers(len(slide.level_dimensions)))
            width, height = slide.level_dimensions[number]
            x, y = int(rng.integers(width)), int(rng.integers(height))
            w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
            try:
                got = slide.read_level(number, x, y, w, h)
                part = truth[width, height][y : y + h, x : x + w].astype(int)
                if got.shape != part.shape or np.abs(got - part).max() > tolerance:
                    wrong.append((number, x, y, w, h))
            except Exception as error:
                wrong.append(error)

    workers = [threading.Thread(target=go, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


def test_each_file_of_a_multi_file_ome_tiff_gives_its_own_pixels(tmp_path):
    """OME metadata may put the first picture into a sibling file, where the offsets of this file mean nothing."""
    pictures = [picture(), picture()[::-1].copy()]
    paths = [tmp_path / f"{i}.ome.tif" for i in range(2)]
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(2)]
    data = "".join(
        f'<TiffData IFD="0" FirstZ="{i}" PlaneCount="1"><UUID FileName="{i}.ome.tif">{uuids[i]}</UUID></TiffData>'
        for i in range(2)
    )
    for i, path in enumerate(paths):
        description = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[i]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="3" '
            f'SizeZ="2" SizeT="1" PhysicalSizeX="0.4" PhysicalSizeY="0.4"><Channel ID="Channel:0:0" '
            f'SamplesPerPixel="3"/>{data}</Pixels></Image></OME>'
        )
        options = {"photometric": "rgb", "metadata": None, "description": description, "rowsperstrip": 16 + 30 * i}
        tifffile.imwrite(path, pictures[i], compression="deflate", **options)
    for path, want in zip(paths, pictures, strict=True):
        slide = Slide(path)
        assert slide.mpp == 0.4
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, WIDTH, HEIGHT), want)
    paths[0].unlink()
    np.testing.assert_array_equal(Slide(paths[1]).read_level(0, 0, 0, WIDTH, HEIGHT), pictures[1])
