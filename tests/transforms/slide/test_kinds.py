"""What is taken for H&E, what is doubted, and what is refused when a slide is opened."""

from __future__ import annotations

import importlib.util
import logging
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from scipy import ndimage

import transforms.slide.cucim_source
import transforms.slide.opening
import transforms.slide.tiff_source
from transforms import Slide, SlideError
from transforms.slide.layout import downsample, read_layout
from transforms.slide.modality import judge_pixels

SIZE = (200, 260)
needs_openslide = pytest.mark.skipif(not importlib.util.find_spec("openslide"), reason="OpenSlide is not installed")
needs_cucim = pytest.mark.skipif(not importlib.util.find_spec("cucim"), reason="cuCIM is not installed")


def he() -> np.ndarray:
    """Purple nuclei in pink tissue on nearly white glass."""
    rng = np.random.default_rng(0)
    tissue = ndimage.gaussian_filter(rng.normal(size=SIZE), 25) > 0
    nuclei = (ndimage.gaussian_filter(rng.normal(size=SIZE), 2) > 0.12) & tissue
    image = np.full((*SIZE, 3), (243, 240, 245), float)
    image[tissue], image[nuclei] = (222, 150, 190), (110, 70, 150)
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def fluorescence(*colors: tuple[int, int, int]) -> np.ndarray:
    """Nuclei that shine on black in one colour, and other structures in others."""
    rng = np.random.default_rng(1)
    image = np.zeros((*SIZE, 3))
    for color in colors:
        light = (ndimage.gaussian_filter(rng.normal(size=SIZE), 3) * 12 - 0.6).clip(0, 1) ** 1.5
        image += light[..., None] * color
    return (image + rng.exponential(3, image.shape)).clip(0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None, **options}
    tifffile.imwrite(path, image, **options)
    return path


def channels(*names: str, **more: Any) -> dict[str, Any]:
    return {"axes": "CYX", "Channel": {"Name": list(names), **more}}


# Not H&E


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (he()[..., 0], {"photometric": "minisblack"}, "grey picture"),
        (he()[..., 0], {"photometric": "miniswhite"}, "grey picture"),
        (he().transpose(2, 0, 1)[:2], {"photometric": "minisblack"}, "2 grey pictures"),
        (he().transpose(2, 0, 1), {"photometric": "minisblack"}, "fluorescence"),
        (he(), {"photometric": "minisblack", "planarconfig": "contig"}, "3 grey pictures"),
        (he().transpose(2, 0, 1), {"photometric": "minisblack", "ome": channels("DAPI", "CD3", "PanCK")}, "CD3"),
        (fluorescence((0, 0, 255), (0, 255, 0)).transpose(2, 0, 1),
         {"photometric": "minisblack", "ome": channels("C0", "C1", "C2")}, "no H&E: .*single dyes"),
        (he().transpose(2, 0, 1)[:2], {"photometric": "minisblack", "ome": channels("a", "Cy5-b")}, "Cy5-b"),
        (he().transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate",
                                   "ome": channels("a", ContrastMethod="Fluorescence")}, "ContrastMethod"),
        (he().astype(np.uint16), {}, "uint16"),
        (he().astype(np.float32), {}, "float32"),
        (he().astype(np.int8), {}, "int8"),
        (np.dstack([he(), he()[..., :2]]), {}, "5 channels"),
        (np.dstack([he(), he()[..., 0]]), {"photometric": "separated"}, "SEPARATED"),
        (he(), {"photometric": "cielab"}, "CIELAB"),
        (he(), {"photometric": "ycbcr"}, "YCbCr without JPEG"),
        (fluorescence((0, 0, 255)), {}, "no H&E: .*fluorescence"),
        (fluorescence((0, 0, 255), (0, 255, 0)), {}, "no H&E: .*fluorescence"),
        (np.pad(fluorescence((255, 0, 0), (0, 0, 255)), ((90, 90), (90, 90), (0, 0))), {}, "no H&E: .*fluorescence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_he_is_refused_with_the_evidence(tmp_path, image, options, message):
    options = dict(options)
    ome = options.pop("ome", None)
    path = write(tmp_path / ("a.ome.tif" if ome else "a.tif"), image, **options, metadata=ome)
    with pytest.raises(SlideError, match=message):
        Slide(path, 0.5)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (he(), {}),
        (np.pad(he(), ((200, 200), (200, 200), (0, 0))), {}),  # black padding
        ((he() * 0.45).astype(np.uint8), {}),  # a dark scan
        (he()[60:110, 60:110], {"tile": (16, 16)}),  # without glass
        (np.full((*SIZE, 3), 250, np.uint8), {}),
        (he().transpose(2, 0, 1), {"planarconfig": "separate"}),
        (he(), {"metadata": {"axes": "YXS"}}),
        (he().transpose(2, 0, 1), {"photometric": "minisblack", "metadata": channels("Red", "Green", "Blue")}),
    ],
)
def test_he_of_any_kind_is_taken_without_a_doubt(tmp_path, image, options):
    path = write(tmp_path / "a.ome.tif", image, **options)
    slide = Slide(path, 0.5)
    assert slide.warnings == []
    want = image.transpose(1, 2, 0) if image.shape[0] == 3 else image
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, *want.shape[1::-1]), want)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.repeat(he()[..., 1:2], 3, axis=2), "grey picture"),
        (fluorescence((160, 160, 160)) // 2, "fluorescence"),
        (np.maximum(fluorescence((0, 0, 255), (0, 255, 0)), (0, 0, 90)).astype(np.uint8), "single dyes"),
    ],
)
def test_what_may_be_no_he_is_doubted(tmp_path, image, message):
    assert [w for w in Slide(write(tmp_path / "a.tif", image, compression="jpeg"), 0.5).warnings if message in w]


@pytest.mark.parametrize(
    ("name", "doubted"),
    [("cy3 H&E restained", True), ("Opal-H&E", True), ("Opalescent", False), ("tissue", False), ("AF488", True)],
)
def test_the_name_of_a_dye_alone_does_not_refuse_rgb(tmp_path, name, doubted):
    path = write(tmp_path / "a.ome.tif", he(), metadata={"axes": "YXS", "Channel": {"Name": [name]}})
    assert [name in message for message in Slide(path, 0.5).warnings] == [True] * doubted


@pytest.mark.parametrize("names", [{}, {"Channel": {"Name": ["Channel 0", "Channel 1", "Channel 2"]}}])
def test_three_planes_without_names_are_judged_by_their_pixels(tmp_path, names):
    planes = np.ascontiguousarray(he().transpose(2, 0, 1))
    path = write(tmp_path / "a.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX", **names})
    slide = Slide(path, 0.5)
    assert [message for message in slide.warnings if "have no names" in message] == slide.warnings
    assert slide.warnings
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, *SIZE[::-1]), he())


def pixels(share: float, brightest: int, least: int) -> np.ndarray:
    """A share of pixels of one colour, on black."""
    image = np.zeros((1000, 3), np.uint8)
    image[: round(1000 * share)] = brightest, (brightest + least) // 2, least
    return image


@pytest.mark.parametrize(
    ("share", "brightest", "least", "refused", "message"),
    [
        (0.50, 200, 29, True, "colours of single dyes"),  # below .15
        (0.50, 200, 31, False, "colours of single dyes"),  # above it
        (0.51, 200, 29, False, "single dyes, as fluorescence"),  # more than half is lit
        (0.50, 200, 79, False, "colours of single dyes"),  # below .4
        (0.50, 200, 81, False, None),
        (0.51, 200, 79, False, "single dyes, as fluorescence"),
        (0.51, 200, 81, False, None),
        (0.50, 129, 100, False, "dim"),
        (0.50, 130, 100, False, None),
        (0.51, 129, 100, False, None),
        (0.010, 200, 0, True, "single dyes"),
        (0.009, 200, 0, False, None),  # too few to say
    ],
)
def test_both_sides_of_each_threshold(share, brightest, least, refused, message):
    surely_not, why = judge_pixels(pixels(share, brightest, least))
    assert surely_not == refused
    assert (why is None) if message is None else message in why


def test_eosin_on_a_masked_background_is_doubted_and_not_refused(tmp_path):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:90] = 200, 60, 110
    assert any("single dyes" in message for message in Slide(write(tmp_path / "a.tif", image), 0.5).warnings)


@pytest.mark.real
def test_no_real_slide_is_taken_for_fluorescence_and_real_fluorescence_is(real_data):
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    pictures = [
        p for folder in ("her2st", "her2st_a1", "mob", "xfuse_mob_tiny") for p in (real_data / folder).rglob("*.jpg")
    ]
    for path in pictures:
        picture = Image.open(path)
        picture.draft("RGB", (600, 600))
        pixels = np.asarray(picture.convert("RGB"))
        for seen in (pixels, np.pad(pixels, ((300, 300), (300, 300), (0, 0))), (pixels * 0.4).astype(np.uint8)):
            assert judge_pixels(seen.reshape(-1, 3)) == (False, None), path
    stains = [np.asarray(Image.open(p).resize((500, 450))) for p in sorted((real_data / "merfish_mini").glob("*.jpg"))]
    dapi, poly = (s[..., 0] if s.ndim == 3 else s for s in stains)
    composite = np.dstack([np.zeros_like(dapi), poly, dapi])
    assert judge_pixels(composite.reshape(-1, 3))[0]


def test_a_stack_a_fourth_sample_and_a_turn_are_reported(tmp_path):
    stack = write(tmp_path / "a.ome.tif", np.stack([he(), he()[::-1]]), metadata={"axes": "ZYXS"})
    slide = Slide(stack, 0.5)
    assert "stack of 2" in slide.warnings[0]
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, *SIZE[::-1]), he())
    fourth = write(tmp_path / "b.tif", np.dstack([he(), he()[..., 0]]), extrasamples=["UNSPECIFIED"])
    assert "fourth" in Slide(fourth, 0.5).warnings[0]
    turned = write(tmp_path / "c.tif", he(), extratags=[(274, 3, 1, 6, True)])
    assert "turned" in Slide(turned, 0.5).warnings[0]


# Aperio's JPEG 2000


def aperio(path: Path, compression: int) -> Path:
    """Tiles of YCbCr (33003) or RGB (33005), as Aperio writes them."""
    image = he()[:192, :256]
    stored = image
    if compression == 33003:
        r, g, b = image.astype(float).transpose(2, 0, 1)
        y = 0.299 * r + 0.587 * g + 0.114 * b
        stored = np.dstack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402]).round().clip(0, 255).astype(np.uint8)
    parts = (stored[y : y + 64, x : x + 64] for y in range(0, 192, 64) for x in range(0, 256, 64))
    encoded = (
        imagecodecs.jpeg2k_encode(np.ascontiguousarray(p), codecformat="j2k", mct=False, reversible=True) for p in parts
    )
    message = "Aperio Image Library v12.0\n256x192 (64x64) J2K |AppMag = 20|MPP = 0.5"
    options = {"photometric": "rgb", "compression": compression, "description": message, "metadata": None}
    tifffile.imwrite(path, encoded, shape=image.shape, dtype=np.uint8, tile=(64, 64), **options)
    return path


@needs_openslide
@pytest.mark.parametrize(("compression", "tolerance"), [(33003, 2), (33005, 0)])
def test_aperio_s_jpeg_2000_has_its_colours(tmp_path, compression, tolerance):
    slide = Slide(aperio(tmp_path / "a.svs", compression))
    assert (slide.backend == "openslide") == (compression == 33003)
    assert slide.mpp == 0.5
    got = slide.read_level(0, 0, 0, 256, 192).astype(int)
    assert np.abs(got - he()[:192, :256]).max() <= tolerance


def test_aperio_s_ycbcr_without_openslide_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(SlideError, match=r"only OpenSlide converts.*openslide is not installed.*pip install openslide"):
        Slide(aperio(tmp_path / "a.svs", 33003))


# mpp


@pytest.mark.parametrize(
    ("options", "mpp", "message"),
    [
        ({"description": "Aperio |MPP = 0.25", "um": 0.5}, 0.25, r"description says 0\.25.*resolution says 0\.5"),
        ({"metadata": {"axes": "YXS", "PhysicalSizeX": 0.25}, "um": 0.5}, 0.25, r"OME metadata says 0\.25.*says 0\.5"),
        ({"um": 1.27}, 1.27, r"says 1\.27 .*0\.5 if pixels per cm are labelled as per inch"),
        ({"um": 0.25 / 2.54}, 0.25 / 2.54, r"unusual.*0\.25 if pixels per inch"),
        ({"um": 2.5}, 2.5, r"says 2\.5 .*0\.25 if it is ten times too large"),
        ({"um": 5}, 5, r"0\.5 if it is ten times too large"),
        ({"um": 5.08}, 5.08, r"0\.2 if pixels per mm"),
        ({"um": 12.7}, 12.7, r"0\.5 if pixels per mm"),
        ({"um": 0.06}, 0.06, "unusual"),
    ],
)  # fmt: skip
def test_tags_that_disagree_and_mpp_that_no_scanner_gives_are_reported(tmp_path, options, mpp, message):
    options = dict(options)
    um = options.pop("um")
    path = write(tmp_path / ("a.ome.tif" if "metadata" in options else "a.tif"), he(), **options,
                 resolution=(1e4 / um, 1e4 / um), resolutionunit="CENTIMETER")  # fmt: skip
    slide = Slide(path)
    assert slide.mpp == pytest.approx(mpp, rel=1e-4)
    (warning,) = slide.warnings
    assert re.search(message, warning)
    assert Slide(path, slide.mpp).warnings == [] or "PixNet uses" in Slide(path, slide.mpp).warnings[0]


@pytest.mark.parametrize("um", [0.12, 0.22, 0.25, 0.5, 1.0, 1.2, 1.3, 1.38, 1.51, 1.76, 2.0, 2.6, 2.76, 4.1, 5.52, 8.0])
def test_what_scanners_give_and_halvings_of_it_are_not_doubted(tmp_path, um):
    path = write(tmp_path / "a.tif", he(), resolution=(1e4 / um, 1e4 / um), resolutionunit="CENTIMETER")
    assert Slide(path).warnings == []


@pytest.mark.parametrize(
    "options",
    [
        {"description": "<OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'><Pixels"},
        {"description": "Aperio MPP = unknown"},
        {"resolution": (0, 0)},
    ],
)
def test_tags_that_say_nothing_ask_for_the_mpp(tmp_path, options):
    with pytest.raises(SlideError, match="--mpp"):
        Slide(write(tmp_path / "a.tif", he(), **options))


# Found at opening


def test_the_log_says_what_reads_a_slide_and_why(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        Slide(write(tmp_path / "a.tif", he(), tile=None, rowsperstrip=16), 0.5)
    assert [m for m in caplog.messages if "a.tif" in m] == [
        f"{tmp_path / 'a.tif'}: tifffile reads it (cucim: its pixels lie in strips)."
    ]


def test_a_slide_is_tried_again_only_if_its_file_has_changed(tmp_path, monkeypatch):
    probe, probed = transforms.slide.opening._probe, []
    monkeypatch.setattr("transforms.slide.opening._probe", lambda *args: probed.append(args) or probe(*args))
    path = write(tmp_path / "a.tif", he())
    assert [Slide(path, mpp).backend for mpp in (0.5, 0.25)] == [Slide(path, 0.5).backend] * 2
    assert len(probed) == 1
    write(path, he()[:190])
    Slide(path, 0.5)
    assert len(probed) == 2


def tampered(path: Path, tag: str, value: bytes, at: int = 0) -> Path:
    """Overwrite bytes of a tag's value."""
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[tag].valueoffset
    content = bytearray(path.read_bytes())
    content[place + at : place + at + len(value)] = value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("ImageWidth", struct.pack("<I", 0), "."),
        ("ImageWidth", struct.pack("<I", 2**31), "cut short"),
        ("TileWidth", struct.pack("<I", 0), "."),
        ("Compression", struct.pack("<H", 6), "old-style JPEG"),
        ("Compression", struct.pack("<H", 4711), "."),
        ("BitsPerSample", struct.pack("<3H", 4, 4, 4), "."),
        ("TileOffsets", bytes(4), "place of a tile is missing"),
        ("TileOffsets", struct.pack("<I", 2**31), "cut short"),
        ("TileByteCounts", struct.pack("<I", 5), "fewer bytes"),
        ("TileByteCounts", bytes(4 * 20), "none of its tiles was written"),
    ],
)
def test_tags_that_cannot_be_are_refused_in_a_sentence(tmp_path, tag, value, message):
    path = tampered(write(tmp_path / "a.tif", he()), tag, value)
    with pytest.raises(SlideError, match=rf"a\.tif .*{message}"):
        Slide(path, 0.5)


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "zstd", "webp"])
@pytest.mark.parametrize("number", [0, 10, 19])
def test_a_tile_that_does_not_decode_is_found_at_opening(tmp_path, compression, number):
    """The first, middle and last tile; cuCIM would crash, or give pixels of another."""
    path = write(tmp_path / "a.tif", he(), compression=compression)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[number], tiff.pages[0].databytecounts[number]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with pytest.raises(SlideError, match="damaged"):
        Slide(path, 0.5)


@needs_cucim
def test_a_jpeg_tile_with_a_damaged_head_never_reaches_cucim(tmp_path):
    path = write(tmp_path / "a.tif", he(), compression="jpeg")
    slide = Slide(path, 0.5, ("cucim",))
    slide._pid = -1  # as after a fork: opened again, without a look at its tiles
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[7]
    content = bytearray(path.read_bytes())
    for damage in (bytes(16), b"\xff\xd8\xff\xc4" + bytes(range(40))):
        content[offset : offset + len(damage)] = damage
        path.write_bytes(content)
        with pytest.raises(SlideError, match="cucim"):
            slide.read_level(0, 2 * 64 + 3, 64 + 3, 20, 20)


def test_levels_that_are_no_smaller_copies_are_left_out(tmp_path):
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(he(), subifds=3, **options)
        tiff.write(he()[::2, ::2], subfiletype=1, **options)
        tiff.write(he()[::2, ::4], subfiletype=1, **options)  # other proportions
        sparse = [he()[:64, :64], *[None] * 1]
        tiff.write(iter(sparse), shape=(50, 65, 3), dtype=np.uint8, subfiletype=1, **options)  # a tile is missing
    slide = Slide(path, 0.5)
    assert slide.level_dimensions == [(260, 200), (130, 100)]
    assert "1 of its 3 levels" in slide.warnings[0]


@pytest.mark.parametrize(
    ("base", "size", "taken"),
    [
        ((4096, 4100), (2048, 2050), True),
        ((4096, 4100), (2048, 2064), False),  # padded to whole tiles
        ((4097, 4101), (2048, 2050), True),
        ((4097, 4101), (2049, 2051), True),
        ((1001, 1003), (250, 250), True),
        ((1001, 1003), (251, 251), True),
        ((1000, 800), (400, 320), True),
        ((10000, 30), (313, 1), True),
        ((1000, 1000), (500, 502), False),
    ],
)
def test_a_level_is_a_copy_if_rounding_alone_explains_its_size(tmp_path, base, size, taken):
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(np.full((*base[::-1], 3), 200, np.uint8), subifds=1, metadata={"axes": "YXS"}, **options)
        tiff.write(np.full((*size[::-1], 3), 200, np.uint8), subfiletype=1, **options)
    layout = read_layout(tmp_path / "a.ome.tif")
    assert layout.seen_levels == (base, size)
    assert len(layout.levels) == 1 + taken
    assert downsample((10000, 30), (313, 1)) == 32


def test_a_slide_that_is_all_transparent_is_doubted(tmp_path):
    for alpha, doubted in ((0, True), (255, False)):
        image = np.dstack([he(), np.full(SIZE, alpha, np.uint8)])
        slide = Slide(write(tmp_path / f"{alpha}.tif", image, extrasamples=["UNASSALPHA"]), 0.5)
        assert any("transparent" in message for message in slide.warnings) == doubted


class Elsewhere:
    """Stands for a backend whose pixels are shifted, or in which one tile differs."""

    name = "cucim"

    def __init__(self, path, layout):
        self.source = transforms.slide.opening.TiffSource(path, layout)
        self.dimensions = self.source.dimensions

    def read(self, level, x_px, y_px, width_px, height_px):
        width = self.dimensions[level][0]
        x_px = min(x_px + self.shift_px, width - width_px)
        pixels = self.source.read(level, x_px, y_px, width_px, height_px).astype(int)
        return (pixels + self.brighter).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("compression", "shift_px", "brighter", "taken"),
    [
        ("deflate", 0, 0, True),
        ("deflate", 1, 0, False),
        ("deflate", 0, 1, False),
        ("jpeg", 1, 0, False),
        ("jpeg", 0, 3, True),
        ("jpeg", 0, 4, False),
    ],
)
def test_a_backend_whose_pixels_differ_from_tifffile_s_is_refused(
    tmp_path, monkeypatch, caplog, compression, shift_px, brighter, taken
):
    caplog.set_level(logging.INFO)
    kind = type("Shifted", (Elsewhere,), {"shift_px": shift_px, "brighter": brighter})
    monkeypatch.setitem(transforms.slide.opening._SOURCES, "cucim", kind)
    path = write(tmp_path / "a.tif", he(), compression=compression)
    assert Slide(path, 0.5).backend == ("cucim" if taken else "tifffile")
    assert any("reads other pixels than tifffile at level 0" in message for message in caplog.messages) != taken


@pytest.mark.parametrize(("huge_px", "tried"), [(64 * 64, True), (64 * 64 - 1, False)])
def test_a_segment_too_large_to_try_is_not_tried(tmp_path, monkeypatch, huge_px, tried):
    monkeypatch.setattr("transforms.slide.opening._HUGE_PX", huge_px)
    kind = type("Shifted", (Elsewhere,), {"shift_px": 1, "brighter": 0})
    monkeypatch.setitem(transforms.slide.opening._SOURCES, "cucim", kind)
    path = write(tmp_path / "a.tif", he(), compression="deflate")
    assert Slide(path, 0.5).backend == ("tifffile" if tried else "cucim")


def test_jpeg_2000_of_matrox_tagged_rgb_is_read(tmp_path):
    image = he()[:192, :256]
    parts = [image[y : y + 64, x : x + 64] for y in range(0, 192, 64) for x in range(0, 256, 64)]
    encoded = (imagecodecs.jpeg2k_encode(np.ascontiguousarray(p), codecformat="j2k", reversible=True) for p in parts)
    options = {"photometric": "rgb", "compression": 33004, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", encoded, shape=image.shape, dtype=np.uint8, tile=(64, 64), **options)
    np.testing.assert_array_equal(Slide(tmp_path / "a.tif", 0.5).read_level(0, 0, 0, 256, 192), image)


def test_a_layout_that_no_backend_reads_is_not_called_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("transforms.slide.tiff_source.MAX_SEGMENT_BYTES", 10_000)

    class Broken(Elsewhere):
        def __init__(self, path, layout):
            raise RuntimeError("unsupported")

    for name in ("cucim", "openslide"):
        monkeypatch.setitem(transforms.slide.opening._SOURCES, name, Broken)
    path = write(tmp_path / "a.tif", he(), tile=None, rowsperstrip=SIZE[0], compression="lzw")
    with pytest.raises(SlideError, match="rewrite it") as refusal:
        Slide(path, 0.5)
    assert "damaged" not in str(refusal.value)


@needs_cucim
def test_jpeg_tiles_with_tables_of_their_own_are_checked_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (192, 448, 3), dtype=np.uint8) // (np.arange(448) // 32 + 1)[:, None].astype(np.uint8)
    parts = [image[y : y + 64, x : x + 64] for y in range(0, 192, 64) for x in range(0, 448, 64)]
    encoded = (imagecodecs.jpeg_encode(np.ascontiguousarray(p), level=90, optimize=True) for p in parts)
    options = {"photometric": "rgb", "compression": 7, "metadata": None, "subsampling": (2, 2)}
    tifffile.imwrite(tmp_path / "a.tif", encoded, shape=image.shape, dtype=np.uint8, tile=(64, 64), **options)
    slide = Slide(tmp_path / "a.tif", 0.5, ("cucim",))
    assert slide.backend == "cucim"
    slide._pid = -1  # as after a fork: opened again, without a look at its tiles
    learnt = []
    learn = transforms.slide.cucim_source._Heads._learn
    monkeypatch.setattr(
        transforms.slide.cucim_source._Heads, "_learn", lambda *args: learnt.append(args[-1]) or learn(*args)
    )
    for _ in range(3):
        slide.read_level(0, 0, 0, 448, 192)
    assert len(learnt) > 10
    assert len(learnt) == len(set(learnt))


@pytest.mark.parametrize("planar", [False, True])
def test_a_large_strip_is_decoded_once_by_all_threads(tmp_path, monkeypatch, planar):
    monkeypatch.setattr("transforms.slide.tiff_source.LARGE_SEGMENT_BYTES", SIZE[0] * SIZE[1])
    decoded = []
    segment = transforms.slide.tiff_source._LevelReader._segment
    monkeypatch.setattr(
        transforms.slide.tiff_source._LevelReader, "_segment", lambda *args: decoded.append(args) or segment(*args)
    )
    image = np.ascontiguousarray(he().transpose(2, 0, 1)) if planar else he()
    options = {"planarconfig": "separate"} if planar else {}
    path = write(tmp_path / "a.tif", image, tile=None, rowsperstrip=SIZE[0], compression="lzw", **options)
    slide = Slide(path, 0.5)
    decoded.clear()
    slide = Slide(path, 0.5)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: slide.read_level(0, x, 5, 40, 60), range(0, 200, 20)))
    for part, x in zip(got, range(0, 200, 20), strict=True):
        np.testing.assert_array_equal(part, he()[5:65, x : x + 40])
    assert len(decoded) == (3 if planar else 1)


@needs_openslide
def test_levels_that_openslide_would_round_are_reported(tmp_path):
    for size, n_expected in ((200, 0), (203, 1)):
        path = tmp_path / f"{size}.tif"
        with tifffile.TiffWriter(path) as tiff:
            for k in (1, 4):
                level = np.ascontiguousarray(np.resize(he(), (size, size, 3))[: size // k * k : k, : size // k * k : k])
                level = level if k > 1 else np.resize(he(), (size, size, 3))
                tiff.write(level, photometric="rgb", tile=(64, 64), subfiletype=int(k > 1), metadata=None)
        slide = Slide(path, 0.5, ("openslide",))
        assert slide.backend == "openslide"
        assert sum("1 of its 2 levels at rounded places" in warning for warning in slide.warnings) == n_expected


def test_a_strip_larger_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transforms.slide.tiff_source.MAX_SEGMENT_BYTES", 10_000)
    path = write(tmp_path / "a.tif", he(), tile=None, rowsperstrip=SIZE[0], compression="lzw")
    with pytest.raises(SlideError, match=r"one compressed strip .* GiB.*vips tiffsave"):
        Slide(path, 0.5, ("tifffile",))
    raw = write(tmp_path / "b.tif", he(), tile=None, rowsperstrip=SIZE[0])
    np.testing.assert_array_equal(Slide(raw, 0.5).read_level(0, 9, 8, 50, 40), he()[8:48, 9:59])


def test_only_plain_tiles_have_no_oddity(tmp_path):
    assert read_layout(write(tmp_path / "a.tif", he())).oddities == []
    assert read_layout(write(tmp_path / "b.tif", he(), predictor=2, compression="lzw")).oddities == ["predictor"]
