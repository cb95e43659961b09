"""Slides: the same pixels in another layout, images that are not H&E, and damaged files."""

from __future__ import annotations

from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from ..base import BIN_UM, MPP, halved, write_slide
from ..case import Build, Case, Must, kind
from ..checks import predicted, region, whole_map
from ..damage import damage, flip_bits

_LOSSLESS: list[dict[str, Any]] = [
    {"compression": None},
    {"compression": "lzw"},
    {"compression": "zlib"},
    {"compression": "zstd"},
    {"compression": "packbits"},
    {"compression": "lzw", "predictor": True},
    {"compression": "zlib", "predictor": True},
    {"compression": "zstd", "predictor": True},
]
_LAYOUTS: list[dict[str, Any]] = [
    {},
    {"tile": (64, 64)},
    {"tile": (256, 128)},
    {"tile": (1024, 1024)},
    {"tile": None, "rowsperstrip": 1},
    {"tile": None, "rowsperstrip": 37},
    {"tile": None, "rowsperstrip": 100_000},
    {"planarconfig": "separate"},
    {"planarconfig": "separate", "tile": None, "rowsperstrip": 50},
]
_FORMS: list[dict[str, Any]] = [{}, {}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}]
_TAGS = {
    "ImageWidth": (0, 1, 599, 10**6, 2**31),
    "ImageLength": (0, 1, 599, 10**6, 2**31),
    "BitsPerSample": ((1, 1, 1), (16, 16, 16), (8, 8, 16), (0, 0, 0)),
    "Compression": (0, 2, 5, 7, 8, 33003, 34712, 50000, 65535),
    "PhotometricInterpretation": (0, 1, 3, 5, 6, 32803, 65535),
    "SamplesPerPixel": (0, 1, 2, 4, 65535),
    "PlanarConfiguration": (0, 2, 9),
    "TileWidth": (0, 1, 17, 2**31),
    "TileLength": (0, 1, 17, 2**31),
    "XResolution": ((0, 1), (1, 0), (1, 1), (2**32 - 1, 1)),
    "YResolution": ((0, 1), (1, 0), (1, 1), (20000, 1)),
    "ResolutionUnit": (0, 1, 2, 9),
}


def predict_bins(build: Build, slide: Path, what: str, must: Must = "either", **check: Any) -> Case:
    """Predict bins of a slide."""
    out = build.out("o.h5ad")
    arguments = ["predict", str(slide), str(out), "--model", str(build.base.run), "--bin-um", BIN_UM]
    if check.pop("with_mpp", False):
        arguments += ["--mpp", str(MPP)]
    arguments += ["--set", "all_genes=true"]
    return Case(what, arguments, must, [out], leaves=work_of("o.h5ad"), check=predicted(out, **check))


def work_of(*names: str) -> list[str]:
    """The work folder, from which a failed prediction may continue."""
    return [pattern for name in map(escape, names) for pattern in (f"out/{name}.work", f"out/{name}.work/*")]


@kind("layouts", 90)
def layouts(build: Build) -> Case:
    """The same pixels, stored differently: the prediction may not change."""
    options = {**_drawn(build, _LOSSLESS), **_drawn(build, _LAYOUTS), **_drawn(build, _FORMS)}
    pixels, base, path = build.base.pixels, build.base, build.input("slide one.tif" if build.chance(0.2) else "S.tif")
    how = build.word("plain", "plain", "plain", "pyramid", "subifds", "alpha", "ome", "png", "map", "link")
    like: Path = base.result("bins.h5ad")
    if how == "png":
        path = build.input(f"S.{build.word('png', 'PNG')}")
        Image.fromarray(pixels).save(path)
        return predict_bins(build, path, "the same pixels as PNG", "either", like=like, with_mpp=True)
    levels = [pixels]
    if how in ("pyramid", "subifds"):
        levels, like = [pixels, halved(pixels)], base.result("pyramid.h5ad")
        options["in_subifds"] = how == "subifds"
    elif how == "alpha":
        levels = [np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])]
        options["extrasamples"] = ["unassalpha"]
    elif how == "ome":
        options |= {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}}
        options["metadata"] |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
        path = path.with_suffix(".ome.tif")
    if options.get("planarconfig") == "separate":  # tifffile takes planes in front
        levels = [np.ascontiguousarray(level.transpose(2, 0, 1)) for level in levels]
        if how == "ome":
            options["metadata"]["axes"] = "SYX"
    write_slide(path, levels, **options)
    what = f"{how}: {', '.join(f'{k}={v}' for k, v in options.items() if k != 'metadata')}"
    if how == "link":
        link = build.input("link.tif")
        link.symlink_to(path)
        path = link
    if how == "map":
        out = build.out("m.zarr")
        arguments = ["predict", str(path), "--model", str(base.run), "--map", str(out)]
        check = whole_map(out, base.result("map.zarr"))
        return Case(what, arguments, "right", [out], leaves=work_of("m.zarr"), check=check)
    return predict_bins(build, path, what, "right", like=like)


@kind("pictures", 50)
def pictures(build: Build) -> Case:
    """Pixels that are not quite H&E in 8 bit: rejected, or read correctly."""
    pixels, path, base = build.base.pixels, build.input("S.tif"), build.base
    like, how = base.result("bins.h5ad"), int(build.rng.integers(16))
    if how == 0:
        write_slide(path, [pixels], compression="jpeg", compressionargs={"level": 95})
        return predict_bins(build, path, "JPEG tiles", "right", like=like, tolerance=0.2, within=True)
    if how == 1:
        path = build.input("S.jpg")
        Image.fromarray(pixels).save(path, quality=95, subsampling=0)
        return predict_bins(build, path, "a JPEG file", "either", like=like, tolerance=0.2, within=True, with_mpp=True)
    if how == 2:
        write_slide(path, [pixels.astype(np.uint16) * 257])
        return predict_bins(build, path, "16 bit", like=like, tolerance=0.02)
    if how == 3:
        write_slide(path, [pixels.astype(np.float32) / 255])
        return predict_bins(build, path, "float32", like=like, tolerance=0.02)
    if how in (4, 5):
        n = int(build.rng.integers(2, 8))
        planes = np.stack([(255 - pixels[..., i % 3]) // (i + 2) for i in range(n)])
        names = [f"marker {i}" for i in range(n)]
        metadata = {"axes": "CYX", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP, "Channel": {"Name": names}}
        if how == 5:
            planes = planes.astype(np.uint16) * 100
        tifffile.imwrite(path, planes, ome=True, photometric="minisblack", tile=(128, 128), metadata=metadata)
        return predict_bins(build, path, f"fluorescence of {n} channels", "sentence")
    if how == 6:
        tifffile.imwrite(
            path, pixels[..., 0], tile=(128, 128), resolution=(1e4, 1e4), resolutionunit="CENTIMETER", metadata=None
        )
        return predict_bins(build, path, "grey")
    if how == 7:
        clear = pixels.copy()
        alpha = np.full(pixels.shape[:2], 255, np.uint8)
        x, y = (int(v) for v in build.rng.integers(0, 400, 2))
        clear[y : y + 200, x : x + 200], alpha[y : y + 200, x : x + 200] = 0, 0
        write_slide(path, [np.dstack([clear, alpha])], extrasamples=["unassalpha"])
        return predict_bins(build, path, "partly transparent", within=True)
    if how == 8:
        image = Image.fromarray(pixels).quantize(200)
        path = build.input("S.png")
        image.save(path)
        return predict_bins(build, path, "palette", like=like, tolerance=0.5, within=True, with_mpp=True)
    if how == 9:
        value = int(build.rng.integers(256))
        write_slide(path, [np.full_like(pixels, value)])
        return predict_bins(build, path, f"all pixels {value}")
    if how == 10:
        h, w = (int(v) for v in build.rng.integers(1, 70, 2))
        write_slide(path, [np.ascontiguousarray(pixels[:h, :w])])
        return predict_bins(build, path, f"{w} x {h} px")
    if how == 11:
        write_slide(path, [pixels], mpp=None)
        return predict_bins(build, path, "no mpp in the tags", "sentence")
    if how == 12:
        mpp = float(build.pick(1e-5, 1e-3, 40.0, 9e3, 9.9))  # type: ignore[arg-type]
        write_slide(path, [pixels], mpp=mpp)
        return predict_bins(build, path, f"tags of {mpp:g} µm per pixel")
    if how == 13:
        text = build.word(
            "Aperio Image Library v1\r\n600x600|AppMag = 40|MPP = 0.25", "Aperio|MPP = nan", "Aperio|MPP = -1",
            "Aperio|MPP = 1,0", "<OME><Image><Pixels PhysicalSizeX='abc'/></Image></OME>", "<OME", "\x00\xff|MPP=",
            '{"shape": [1, 2], "axes": "Q"}', "ImageJ=1.53\nimages=9\nunit=micron",
        )  # fmt: skip
        write_slide(path, [pixels], description=text.encode("latin-1"))
        return predict_bins(build, path, f"description {text[:30]!r}", like=like, within=True, tolerance=1e9)
    if how == 14:
        with tifffile.TiffWriter(path) as tiff:
            for level in (pixels, halved(pixels), pixels[:100]):  # the last has another shape
                tiff.write(level, photometric="rgb", tile=(128, 128), resolution=(1e4, 1e4), resolutionunit=3)
        return predict_bins(build, path, "a pyramid of levels that do not fit")
    write_slide(path, [pixels[..., ::-1].copy()])
    return predict_bins(build, path, "blue and red exchanged")


@kind("slides", 110)
def damaged(build: Build) -> Case:
    """A damaged slide: a sentence, or values that are possible."""
    options = {**_drawn(build, _LOSSLESS), **_drawn(build, _LAYOUTS[:7]), **_drawn(build, _FORMS)}
    path = build.input("S.tif")
    write_slide(path, [build.base.pixels], **options)
    said = ", ".join(f"{k}={v}" for k, v in options.items())
    how = int(build.rng.integers(8))
    if how < 2:
        what = damage(path, build.rng)
    elif how == 2:
        flip_bits(path, build.rng, 1 + int(build.rng.integers(4)), high=0.001)
        what = "flipped bits in the header"
    elif how < 5:
        what = _wrong_tag(build, path)
    elif how == 5:
        what = _missing_tiles(build, path)
    elif how == 6:
        with tifffile.TiffFile(path) as tiff:
            at = tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags)  # type: ignore[union-attr]
            big, order = tiff.is_bigtiff, tiff.byteorder
        content = bytearray(path.read_bytes())
        if not big:
            content[at : at + 4] = int(build.pick(8, at, 2**31)).to_bytes(4, "little" if order == "<" else "big")  # type: ignore[call-overload]
        path.write_bytes(content)
        what = "a directory that follows itself"
    else:
        name = build.word("S.svs", "S.ndpi", "S.mrxs", "S.scn", "S.bif", "S.jpg", "S.png", "S.txt", "S", "S.tif.gz")
        path = path.rename(build.input(name))
        what = f"a TIFF called {name}"
    ask = build.word("bins", "bins", "bins", "spots", "nifti", "map")
    what = f"{what} ({said}), {ask}"
    if ask == "bins":
        return predict_bins(build, path, what)
    model = ["--model", str(build.base.run)]
    if ask == "spots":
        out = build.out("o.h5ad")
        units = build.copy(build.base.units, "spots.h5ad")
        arguments = ["predict", str(path), str(out), *model, "--spots", str(units)]
        return Case(what, arguments, outputs=[out], leaves=work_of("o.h5ad"), check=predicted(out))
    if ask == "map":
        out = build.out("m.zarr")
        arguments = ["predict", str(path), *model, "--map", str(out)]
        return Case(what, arguments, outputs=[out], leaves=work_of("m.zarr"), check=whole_map(out))
    out = build.out("n.nii.gz")
    part = ["--nifti", str(out), "--region", "100,100,300,200", "--genes", build.base.genes[0]]
    return Case(
        what, ["predict", str(path), *model, *part], outputs=[out], leaves=work_of("n.nii.gz"), check=region(out)
    )


def _drawn(build: Build, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(choices[int(build.rng.integers(len(choices)))])


def _wrong_tag(build: Build, path: Path) -> str:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags  # type: ignore[union-attr]
        name = build.word(*(tag for tag in _TAGS if tag in tags))
        value = _TAGS[name][int(build.rng.integers(len(_TAGS[name])))]
        try:
            tags[name].overwrite(value)
        except Exception:  # it does not fit the tag's type: another value, then
            tags["PhotometricInterpretation"].overwrite(3)
            name, value = "PhotometricInterpretation", 3
    return f"{name}={value}"


def _missing_tiles(build: Build, path: Path) -> str:
    """Tiles that were never written: no offset, no bytes; or places beyond the file."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[0].tags  # type: ignore[union-attr]
        names = [name for name in ("TileOffsets", "StripOffsets") if name in tags]
        offsets = tags[names[0]]
        counts = tags[names[0].replace("Offsets", "ByteCounts")]
        places, sizes = np.atleast_1d(offsets.value).copy(), np.atleast_1d(counts.value).copy()
        gone = build.rng.random(len(places)) < 0.4
        how = build.word("never written", "no bytes", "beyond the file", "huge", "exchanged")
        if how == "never written":
            places[gone], sizes[gone] = 0, 0
        elif how == "no bytes":
            sizes[gone] = 0
        elif how == "beyond the file":
            places[gone] = 2**31 - 1
        elif how == "huge":
            sizes[gone] = min(2**31, np.iinfo(sizes.dtype).max)
        else:
            places = places[::-1]
        try:
            offsets.overwrite(tuple(int(v) for v in places) if len(places) > 1 else int(places[0]))
            counts.overwrite(tuple(int(v) for v in sizes) if len(sizes) > 1 else int(sizes[0]))
        except Exception:  # counts of two bytes
            return "tiles as they were"
    return f"tiles {how}"
