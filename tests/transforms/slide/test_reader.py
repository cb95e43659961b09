from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import transforms.slide.reader
from transforms import Slide, SlideError, SlideReader

INSTALLED = [b for b in ("cucim", "tifffile", "openslide") if importlib.util.find_spec(b)]
ODD = (331, 457)  # every halving of it rounds


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*ODD, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    y, x = np.mgrid[: ODD[0], : ODD[1]]
    return np.stack([127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), (x + y) % 256], axis=-1).astype(np.uint8)


def opened(path: Path, *backends: str, mpp: float | None = None) -> Slide:
    return SlideReader(backends or ("cucim", "tifffile", "openslide")).open(path, mpp)


def on_white(level: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    pad = 600
    padded = np.pad(level, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    return padded[y + pad : y + pad + height, x + pad : x + pad + width]


@pytest.mark.parametrize("size", [ODD, (256, 512)])
@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
@pytest.mark.parametrize("backend", INSTALLED)
def test_every_level_is_the_file_s_own_pixels(tmp_path, write_slide, backend, compression, size):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "a.tif", image, 0.5, compression=compression)
    levels = [page.asarray() for page in tifffile.TiffFile(path).pages]
    slide = opened(path, backend)
    shapes = [level.shape[1::-1] for level in levels]
    if backend == "openslide":  # it keeps the levels it reads exactly
        assert slide.level_dimensions == (shapes if size != ODD else shapes[:1])
    else:
        assert slide.level_dimensions == shapes
    assert slide.level_downsamples == [2**i for i in range(len(slide.level_dimensions))]
    tolerance = 0 if backend == "tifffile" or compression != "jpeg" else 2  # decoders of JPEG differ in rounding
    for i in range(len(slide.level_dimensions)):
        height, width = levels[i].shape[:2]
        boxes = [(0, 0, width, height), (width, 0, 5, 5), (-9, -7, width + 20, height + 20)]
        for _ in range(25):
            x, y = rng.integers(-40, width), rng.integers(-40, height)
            boxes.append((int(x), int(y), int(rng.integers(1, 90)), int(rng.integers(1, 90))))
        for box in boxes:
            got, want = slide.read_level(i, *box), on_white(levels[i], *box)
            assert got.dtype == np.uint8
            assert got.shape == want.shape
            assert np.abs(got.astype(int) - want).max() <= tolerance, (i, box)


@pytest.mark.parametrize("layout", ["strips", "one strip", "one level", "subifds", "planar", "rgba"])
def test_other_layouts_read_alike_whatever_backend_takes_them(tmp_path, write_slide, image, layout):
    options = {
        "strips": {"tile_px": None, "compression": "deflate", "rowsperstrip": 16},
        "one strip": {"tile_px": None, "pyramid": False},
        "one level": {"pyramid": False, "compression": "deflate"},
        "subifds": {"subifds": True, "compression": "deflate"},
        "planar": {"tile_px": None, "pyramid": False, "planarconfig": "separate", "compression": "deflate"},
        "rgba": {"extrasamples": "unassalpha", "compression": "deflate"},
    }[layout]
    written = image
    if layout == "planar":
        written = np.ascontiguousarray(image.transpose(2, 0, 1))
    if layout == "rgba":
        written = np.dstack([image, np.full(ODD, 255, np.uint8)])
    path = write_slide(tmp_path / "a.tif", written, 0.5, **options)
    slide = opened(path)
    assert len(slide.level_dimensions) == (4 if layout in ("strips", "subifds", "rgba") else 1)
    np.testing.assert_array_equal(slide.read_level(0, 37, 41, 200, 150), image[41:191, 37:237])
    if len(slide.level_dimensions) > 1:
        np.testing.assert_array_equal(slide.read_level(2, 3, 5, 60, 50), image[::4, ::4][5:55, 3:63])


def test_a_file_that_opens_but_does_not_read_goes_to_the_next_backend(tmp_path, write_slide, image):
    path = write_slide(tmp_path / "a.tif", image, 0.5, compression="jpeg2000")
    slide = opened(path, "cucim", "tifffile")
    assert slide.backend == "tifffile"
    np.testing.assert_array_equal(slide.read_level(0, 10, 20, 64, 64), image[20:84, 10:74])


@pytest.mark.parametrize("mpp", [0.5, 0.501, 0.73, 1.0, 1.009, 1.37, 3.3, 0.31])
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_region_does_not_depend_on_how_it_is_cut(tmp_path, write_slide, image, backend, mpp):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5, compression="deflate"), backend)
    x, y, width, height = -5, -3, 90, 70
    whole = slide.read_region(x, y, width, height, mpp)
    xs, ys = [0, 1, 33, 64, width], [0, 17, 18, height]
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            part = slide.read_region(x + x0, y + y0, x1 - x0, y1 - y0, mpp)
            np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("setting", ["medium", "one backend", "autocast", "float64", "meta"])
def test_the_precision_set_in_torch_does_not_change_pixels(tmp_path, write_slide, image, setting, request):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5))
    whole = slide.read_region(-4, -6, 150, 140, 1.37)
    request.addfinalizer(lambda: torch.set_float32_matmul_precision("highest"))
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    request.addfinalizer(lambda: torch.set_default_device(None))
    if setting == "medium":
        torch.set_float32_matmul_precision("medium")
    elif setting == "one backend":
        if not hasattr(torch.backends.mkldnn, "matmul"):
            pytest.skip("this PyTorch has no precision of one backend")
        request.addfinalizer(lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "none"))
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    elif setting == "float64":
        torch.set_default_dtype(torch.float64)
    elif setting == "meta":
        torch.set_default_device("meta")
    with torch.autocast("cpu", torch.bfloat16, setting == "autocast"):
        np.testing.assert_array_equal(slide.read_region(-4, -6, 150, 140, 1.37), whole)


def test_large_regions_are_read_in_pieces_with_the_same_result(tmp_path, write_slide, image, monkeypatch):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5))
    want = slide.read_region(-4, -6, 120, 100, 1.37)
    monkeypatch.setattr("transforms.slide.reader.MAX_SOURCE_PX", 2000)
    np.testing.assert_array_equal(slide.read_region(-4, -6, 120, 100, 1.37), want)


@pytest.mark.parametrize("mpp", [0.31, 0.52, 0.7, 1.37, 1.93])
def test_resampling_is_pillow_s_antialiased_bilinear(tmp_path, write_slide, image, mpp):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5, pyramid=False))
    scale, x, y, width, height = mpp / 0.5, 11, 9, 90, 70
    box = (x * scale, y * scale, (x + width) * scale, (y + height) * scale)
    want = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))
    got = slide.read_region(x, y, width, height, mpp)
    assert np.abs(got.astype(int) - want).max() <= 1


def test_a_level_of_the_requested_mpp_is_copied_and_the_coarsest_sufficient_one_is_used(tmp_path, write_slide, image):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5))
    np.testing.assert_array_equal(slide.read_region(3, 5, 40, 30, 2.0), image[::4, ::4][5:35, 3:43])
    levels = []
    read = slide.read_level
    slide.read_level = lambda level, *box: levels.append(level) or read(level, *box)  # type: ignore[method-assign]
    for mpp in (0.2, 0.5, 0.9, 0.995, 1.4, 2.1, 50.0):
        slide.read_region(0, 0, 4, 4, mpp)
    assert levels == [0, 0, 0, 1, 1, 2, 3]


def test_um_and_px_agree_between_resolutions(tmp_path, write_slide):
    """A dark square keeps its centre and its area in micrometres at any mpp."""
    image = np.full((400, 600, 3), 255, np.uint8)
    image[100:180, 240:320] = 55  # x 120..160 um, y 50..90 um
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5, pyramid=False))
    assert slide.size_um == (300, 200)
    for mpp in (0.3, 0.5, 0.77, 2.0, 3.1):
        x0, y0 = round(100 / mpp), round(30 / mpp)
        got = slide.read_region(x0, y0, int(90 / mpp), int(90 / mpp), mpp)[..., 0]
        dark = (255 - got.astype(float)) / 200
        y, x = np.mgrid[: got.shape[0], : got.shape[1]] + 0.5
        assert dark.sum() * mpp**2 == pytest.approx(1600, rel=0.01)
        assert ((x + x0) * mpp * dark).sum() / dark.sum() == pytest.approx(140, abs=0.1)
        assert ((y + y0) * mpp * dark).sum() / dark.sum() == pytest.approx(70, abs=0.1)


def test_white_stays_white_and_glass_surrounds_the_slide(tmp_path, write_slide):
    slide = opened(write_slide(tmp_path / "a.tif", np.full((100, 130, 3), 255, np.uint8), 0.5))
    assert (slide.read_region(-20, -20, 150, 150, 0.77) == 255).all()
    assert (slide.read_region(10_000, 5, 8, 8, 1.37) == 255).all()


def test_thumbnail_is_the_whole_slide_and_says_its_mpp(tmp_path, write_slide, smooth):
    slide = opened(write_slide(tmp_path / "a.tif", smooth, 0.5))
    small, mpp = slide.thumbnail(50)
    assert max(small.shape[:2]) == 50
    assert small.shape[1] * mpp == pytest.approx(slide.size_um[0])
    assert small.shape[0] * mpp == pytest.approx(slide.size_um[1], abs=mpp)
    same, mpp = slide.thumbnail(10_000)
    assert mpp == 0.5
    np.testing.assert_array_equal(same, smooth)


def test_a_thumbnail_is_a_level_where_one_is_about_as_large(tmp_path, write_slide, smooth):
    slide = opened(write_slide(tmp_path / "a.tif", smooth, 0.5))
    width, height = slide.level_dimensions[1]
    half = slide.read_level(1, 0, 0, width, height)
    for max_px in (max(width, height), 2 * max(width, height) - 2):
        picture, mpp = slide.thumbnail(max_px)
        np.testing.assert_array_equal(picture, half)
        assert mpp == pytest.approx(1.0, rel=0.01)


# mpp


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"description": "Aperio Image Library\n1x1 |AppMag = 20|MPP = 0.4990|Left = 1"}, 0.499),
        (
            {
                "description": "Aperio Image Library |MPP = 0.25",
                "resolution": (72, 72),
                "resolutionunit": "INCH",
            },
            0.25,
        ),
    ],
)
def test_mpp_comes_from_the_tags(tmp_path, write_slide, image, options, mpp):
    path = write_slide(tmp_path / "a.tif", image, None, pyramid=False, **options)
    assert opened(path).mpp == pytest.approx(mpp)
    assert opened(path, mpp=0.7).mpp == 0.7  # the user's word counts


@pytest.mark.parametrize(("size", "unit"), [(0.325, "µm"), (325.0, "nm"), (3.25e-4, "mm")])
def test_mpp_comes_from_ome(tmp_path, image, size, unit):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", metadata=metadata)
    assert opened(path).mpp == pytest.approx(0.325)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": (72, 72), "resolutionunit": "INCH"},
        {"resolution": (1, 1), "resolutionunit": "NONE"},
    ],
)
def test_no_or_no_plausible_mpp_asks_for_it(tmp_path, write_slide, image, options):
    path = write_slide(tmp_path / "a.tif", image, None, pyramid=False, **options)
    with pytest.raises(SlideError, match="--mpp"):
        opened(path)
    assert opened(path, mpp=0.5).mpp == 0.5


@pytest.mark.parametrize("mpp", [0, -1, 500, float("nan")])
def test_an_impossible_given_mpp_is_refused(tmp_path, write_slide, image, mpp):
    with pytest.raises(SlideError, match="micrometres"):
        opened(write_slide(tmp_path / "a.tif", image, 0.5), mpp=mpp)


def test_pixels_that_are_not_square_are_refused(tmp_path, write_slide, image):
    options = {"pyramid": False, "resolutionunit": "CENTIMETER"}
    path = write_slide(tmp_path / "a.tif", image, None, resolution=(20000, 20400), **options)
    with pytest.raises(SlideError, match="not square"):
        opened(path)
    path = write_slide(tmp_path / "b.tif", image, None, resolution=(20000, 20100), **options)
    assert opened(path).mpp == pytest.approx(0.49875, rel=1e-4)


# Bad files


def test_missing_and_alien_files_say_what_to_do(tmp_path, image):
    with pytest.raises(SlideError, match=r"No such slide: .*gone\.tif"):
        opened(tmp_path / "gone.tif")
    for name in ("a.jpg", "a.png"):
        Image.fromarray(image).save(tmp_path / name)
        with pytest.raises(SlideError, match="vips tiffsave"):
            opened(tmp_path / name)
    (tmp_path / "a.svs").write_text("not a slide at all")
    with pytest.raises(SlideError, match="cannot be read as a slide"):
        opened(tmp_path / "a.svs")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(SlideError, match="cannot be read as a slide"):
        opened(tmp_path / "empty.tif")
    tifffile.imwrite(tmp_path / "dapi.tif", image[..., 0].astype(np.uint16))
    with pytest.raises(SlideError, match="8-bit RGB"):
        opened(tmp_path / "dapi.tif")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("options", [{"compression": "jpeg"}, {}, {"tile_px": None, "pyramid": False}])
def test_a_slide_cut_short_is_refused_when_opened(tmp_path, write_slide, image, options, share):
    path = write_slide(tmp_path / "a.tif", image, 0.5, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SlideError, match=r"a\.tif .*cut short"):
        opened(path)


@pytest.mark.parametrize("options", [{"compression": "jpeg"}, {"subifds": True}])
def test_a_slide_cut_anywhere_is_refused_when_opened(tmp_path, write_slide, options):
    """Also within the tags, which say where tiles lie, and where a level ends."""
    content = write_slide(tmp_path / "a.tif", np.full((300, 200, 3), 200, np.uint8), 0.5, tile_px=16, **options)
    content = content.read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        pages = [level.pages[0] for level in tiff.series[0].levels]
        ends = [max(o + n for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)) for p in pages]
    for size in {*range(8, len(content), len(content) // 60), *ends[:-1], len(content) - 1}:
        path = tmp_path / f"{size}.tif"
        path.write_bytes(content[:size])
        with pytest.raises(SlideError, match=r"cut short|cannot be read as a"):
            opened(path)


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_tile_that_breaks_later_names_the_file_and_the_region(tmp_path, write_slide, image, backend, monkeypatch):
    path = write_slide(tmp_path / "a.tif", image, 0.5, compression="deflate")
    page = tifffile.TiffFile(path).pages[0]
    offset, count = page.dataoffsets[1], page.databytecounts[1]  # the first is tried when the slide is opened
    monkeypatch.setattr("transforms.slide.opening._sampled", lambda *_: np.empty((0, 3), np.uint8))  # and not cached
    slide = opened(path, backend)
    content = path.read_bytes()
    path.write_bytes(content[:offset] + bytes(count) + content[offset + count :])
    with pytest.raises(SlideError, match=rf"a\.tif cannot be read at level 0, x=70, y=5, 8 x 8 px with {backend}"):
        slide.read_level(0, 70, 5, 8, 8)
    path.write_bytes(content)
    np.testing.assert_array_equal(slide.read_level(0, 70, 5, 8, 8), image[5:13, 70:78])  # and it recovers


def test_nonsense_requests_are_refused(tmp_path, write_slide, image):
    with pytest.raises(ValueError, match="cucim, tifffile, openslide"):
        SlideReader(("vips",))
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5))
    with pytest.raises(SlideError, match="at least 1 x 1"):
        slide.read_region(0, 0, 0, 5, 1.0)
    with pytest.raises(SlideError, match="above 0"):
        slide.read_region(0, 0, 5, 5, 0.0)


# Processes


def test_reader_and_slide_pickle_as_their_arguments(tmp_path, write_slide, image):
    path = write_slide(tmp_path / "a.tif", image, None)
    reader = SlideReader(("tifffile",))
    slide = reader.open(path, 0.6)
    again = pickle.loads(pickle.dumps(reader))
    assert again.backends == ("tifffile",)
    np.testing.assert_array_equal(again.open(path, 0.6).read_level(1, 3, 4, 9, 8), slide.read_level(1, 3, 4, 9, 8))
    copy = pickle.loads(pickle.dumps(slide))
    assert (copy.mpp, copy.backend, copy.level_dimensions) == (0.6, "tifffile", slide.level_dimensions)


def test_open_slides_are_kept_until_their_file_changes(tmp_path, write_slide, image, monkeypatch):
    monkeypatch.setattr("transforms.slide.reader.MAX_OPEN", 2)
    reader = SlideReader()
    paths = [write_slide(tmp_path / f"{i}.tif", image, 0.5, pyramid=False) for i in range(3)]
    first = reader.open(paths[0])
    assert reader.open(paths[0]) is first
    assert reader.open(paths[0], 0.4) is not first
    for path in paths[1:]:
        reader.open(path)
    assert reader.open(paths[0]) is not first  # the oldest was let go
    assert first.read_level(0, 0, 0, 4, 4).shape == (4, 4, 3)  # who still holds it can use it
    write_slide(paths[0], image[:100], 0.5, pyramid=False)
    assert reader.open(paths[0]).level_dimensions == [(ODD[1], 100)]


def _read(slide: Slide, x: int, queue) -> None:
    opening, opens = transforms.slide.reader.reopen_source, []
    transforms.slide.reader.reopen_source = lambda *args: opens.append(args) or opening(*args)  # this process is a copy
    pixels = [slide.read_level(0, x, 0, 40, 40) for _ in range(2)]
    queue.put((x, pixels[1], len(opens)))


@pytest.mark.parametrize("backend", INSTALLED)
def test_forked_workers_read_what_the_parent_reads(tmp_path, write_slide, image, backend):
    slide = opened(write_slide(tmp_path / "a.tif", image, 0.5, compression="deflate"), backend)
    slide.read_level(0, 0, 0, 40, 40)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_read, args=(slide, x, queue)) for x in (0, 100, 200)]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    for x, pixels, opens in got:
        assert opens == 1  # files of its own: a file position shared with the parent would be raced for
        np.testing.assert_array_equal(pixels, image[:40, x : x + 40])


@pytest.mark.real
def test_a_real_aperio_slide(real_data):
    path = real_data / "wsi" / "CMU-1-Small-Region.svs"
    want = tifffile.imread(path)
    for backend in INSTALLED:
        slide = opened(path, backend)
        assert slide.mpp == pytest.approx(0.499)
        assert slide.level_dimensions == [(2220, 2967)]
        got = slide.read_level(0, 700, 800, 300, 200)
        assert np.abs(got.astype(int) - want[800:1000, 700:1000]).max() <= 3
