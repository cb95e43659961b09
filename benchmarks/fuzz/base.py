"""Slides, a run and results of unchanged inputs: generated once, never changed by a case."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from .runner import Bounds, run

__all__ = ["BIN_UM", "MPP", "TINY", "Base", "make_base", "octagons", "write_slide"]

#: µm per level-0 pixel of the slides.
MPP = 1.0
#: Side of the bins that most cases predict.
BIN_UM = "55"
#: Settings of a network and a training that take a second.
TINY: dict[str, Any] = {
    "mpp": 2.0,
    "crop_px": 128,
    "crops_per_slide": 2,
    "max_epochs": 2,
    "val_interval": 1,
    "min_total": 20,
    "ema_decay": 0.8,
    "network_def#encoder": {
        "_target_": "networks.SwinEncoder",
        "embed_dim": 12,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "network_def#decoder_channels": [8, 8],
    "network_def#ridge#encoder#strides": [4, 16],
    "network_def#ridge#encoder#n_patches": 8,
    "network_def#ridge#context_px": 48,
}
_DONE = "whole.json"


@dataclass(frozen=True)
class Base:
    """The generated files.

    Attributes:
        folder: where.
    """

    folder: Path

    @property
    def dataset(self) -> Path:
        """Three slides of 600 µm: P1 to train on, P2 to validate on, P3 to test on."""
        return self.folder / "phantom"

    @property
    def slide(self) -> Path:
        """P3 as a tiled TIFF of one level, not compressed."""
        return self.folder / "slides" / "P3.tif"

    @property
    def pyramid(self) -> Path:
        """The same with a second level."""
        return self.folder / "slides" / "pyramid.tif"

    @property
    def pixels(self) -> np.ndarray:
        """Of P3, uint8 (H, W, 3)."""
        return tifffile.imread(self.slide)

    @property
    def units(self) -> Path:
        """Measured spots of P3."""
        return self.dataset / "units" / "P3_spot55.h5ad"

    @property
    def run(self) -> Path:
        """A trained run of two epochs."""
        return self.folder / "run"

    @property
    def cells(self) -> Path:
        """Cells of P3 as GeoJSON."""
        return self.folder / "cells.geojson"

    @property
    def labels(self) -> Path:
        """Cells of P3 as a label image, int32 (H, W)."""
        return self.folder / "labels.npy"

    @property
    def legacy(self) -> Path:
        """Two sections in Her2ST's layout."""
        return self.folder / "her2st"

    @property
    def genes(self) -> list[str]:
        """Of the run's panel."""
        return json.loads((self.run / "models" / "panel.json").read_text())["genes"]

    def result(self, name: str) -> Path:
        """What a command makes of the unchanged input: see `_RESULTS`."""
        return self.folder / "results" / name

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file, which no case may change."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file():
                stat = path.stat()
                found[str(path)] = (stat.st_size, stat.st_mtime_ns)
        return found


def settings(values: dict[str, Any]) -> list[str]:
    """As options of the command line."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def make_base(work: Path) -> Base:
    """Generate it, or reuse what the same code has generated before."""
    folder = work / f"base-{_identity()}"
    base = Base(folder)
    if (folder / _DONE).is_file():
        return base
    (folder / "cwd").mkdir(parents=True, exist_ok=True)
    phantom = ["--slides", "3", "--size-um", "600", "--mpp", str(MPP), "--genes", "30", "--units", "spot:55:60,bin:16"]
    _command(base, ["phantom", str(base.dataset), *phantom, "--truth", "none"])
    _command(base, ["train", str(base.dataset), str(base.run), *settings(TINY)])
    image = tifffile.imread(base.dataset / "slides" / "P3.tif")
    base.slide.parent.mkdir(exist_ok=True)
    write_slide(base.slide, [image])
    write_slide(base.pyramid, [image, halved(image)])
    (folder / "results").mkdir(exist_ok=True)
    _write_cells(base)
    _write_legacy(base.legacy)
    for name, arguments in _results(base).items():
        _command(base, [a.replace("OUT", str(base.result(name))) for a in arguments])
    (folder / _DONE).write_text(json.dumps(sorted(_results(base))))
    return base


def _identity() -> str:
    """Of the code that is tried, and of this file."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("bundle", "configs", "networks", "transforms"):
        for path in sorted((root / name).rglob("*.[pj][ys]*")):
            if path.suffix in (".py", ".json"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _results(base: Base) -> dict[str, list[str]]:
    model = ["--model", str(base.run), "--set", "all_genes=true"]
    slide = str(base.slide)
    audit = ["audit", str(base.result("spots.h5ad")), str(base.units), "--out", "OUT", "--min-total", "20"]
    return {
        "bins.h5ad": ["predict", slide, "OUT", "--bin-um", BIN_UM, *model],
        "pyramid.h5ad": ["predict", str(base.pyramid), "OUT", "--bin-um", BIN_UM, *model],
        "spots.h5ad": ["predict", slide, "OUT", "--spots", str(base.units), *model],
        "cells.h5ad": ["predict", slide, "OUT", "--cells", str(base.cells), *model],
        "labels.h5ad": ["predict", slide, "OUT", "--cells", str(base.labels), *model],
        "map.zarr": ["predict", slide, "--map", "OUT", *model],
        "audit": audit,
        "prepared": ["prepare", str(base.legacy), "OUT", "--test", "B"],
        "run": ["train", str(base.dataset), "OUT", *settings(TINY)],
    } | {"scored": ["evaluate", str(base.run), "--split", "test", "--name", "test"]}


def _command(base: Base, arguments: Sequence[str]) -> None:
    outcome = run(arguments, base.folder, Bounds(seconds=600.0, cpu_seconds=600))
    if outcome.status != 0:
        raise RuntimeError(f"pixnet {' '.join(arguments)} failed on unchanged input: {outcome.err[-2000:]}")


def halved(image: np.ndarray) -> np.ndarray:
    """The next level of a pyramid: every second pixel."""
    return np.ascontiguousarray(image[::2, ::2])


def write_slide(path: Path, levels: Sequence[np.ndarray], mpp: float | None = MPP, **options: Any) -> Path:
    """Write levels as a tiled TIFF, RGB without compression unless `options` (of tifffile) say otherwise."""
    options = {"photometric": "rgb", "tile": (128, 128), "metadata": None} | options
    writer = {key: options.pop(key) for key in ("bigtiff", "byteorder", "ome") if key in options}
    subifds = options.pop("in_subifds", False)
    with tifffile.TiffWriter(path, **writer) as tiff:
        for number, level in enumerate(levels):
            if mpp is not None:
                options |= {"resolution": (1e4 / (mpp * 2**number),) * 2, "resolutionunit": "CENTIMETER"}
            own = {key: value for key, value in options.items() if value is not None}
            if number == 0 and subifds:
                own["subifds"] = len(levels) - 1
            tiff.write(level, subfiletype=int(number > 0), **own)
            options.pop("description", None)
    return path


def octagons(centers: np.ndarray, radius: float) -> list[dict[str, Any]]:
    """Cells as features of GeoJSON, named c0, c1, ..."""
    angles = np.arange(9) * math.pi / 4
    ring = np.column_stack([np.cos(angles), np.sin(angles)]) * radius
    ring[-1] = ring[0]
    return [
        {
            "type": "Feature",
            "id": f"c{number}",
            "geometry": {"type": "Polygon", "coordinates": [np.round(center + ring, 2).tolist()]},
            "properties": {"objectType": "cell", "classification": {"name": "Tumor" if number % 2 else "Stroma"}},
        }
        for number, center in enumerate(centers)
    ]


def _write_cells(base: Base) -> None:
    centers = ad.read_h5ad(base.units).obsm["spatial"][::2]
    base.cells.write_text(json.dumps({"type": "FeatureCollection", "features": octagons(centers, 9.0)}))
    height, width = base.pixels.shape[:2]
    labels = np.zeros((height, width), np.int32)
    y, x = np.mgrid[:height, :width] + 0.5
    for number, (cx, cy) in enumerate(centers, 1):
        labels[(x - cx) ** 2 + (y - cy) ** 2 < 81] = number
    np.save(base.labels, labels)


def _write_legacy(root: Path) -> None:
    """Sections A1 and B1: 8 x 6 spots, 30 px apart."""
    for folder in ("ST-cnts", "ST-spotfiles", "ST-imgs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("A1", "B1")):
        rng = np.random.default_rng(seed)
        x, y = (v.ravel() for v in np.meshgrid(np.arange(3, 11), np.arange(4, 10)))
        new = np.column_stack([x, y]) + rng.normal(0, 0.04, (len(x), 2))
        spots = pd.DataFrame({"x": x, "y": y, "new_x": new[:, 0], "new_y": new[:, 1]})
        spots[["pixel_x", "pixel_y"]] = (new - (2, 3)) * 30.0
        spots["selected"] = 1
        genes = [f"GENE{i}" for i in range(12)]
        rows = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
        counts = pd.DataFrame(rng.poisson(3, (len(x), len(genes))), index=rows, columns=genes)
        with gzip.open(root / "ST-cnts" / f"{name}.tsv.gz", "wt") as file:
            counts.to_csv(file, sep="\t")
        spots.to_csv(root / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t", index=False)
        smooth = np.kron(rng.integers(60, 256, (12, 15, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8))
        Image.fromarray(smooth).save(root / "ST-imgs" / f"{name}.jpg", quality=95)
