"""How far H&E of one laboratory lies from another's, and fluorescence from all: `python -m benchmarks.stain`.

It restains real slides of five laboratories as training restains its crops (`transforms.RandHEStain`) and compares them
with the slides of each other laboratory as a model's training slides, and with their own. Images that are not H&E are
real fluorescence and inverted slides. It prints the distances' quantiles; the last line is JSON.

`bundle.data.tissue.STAIN_LIMIT` follows from it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from bundle.data.tissue import STAIN_LIMIT, TissueMap, stain_distance
from transforms import TissueMask
from transforms.stain import RandHEStain

__all__ = ["main", "measure"]

#: Images of each laboratory, and µm per pixel of the whole image.
LABORATORIES: dict[str, dict[str, float]] = {
    "her2st": {
        **{f"her2st/ST-imgs/{name}.jpg": 0.69 for name in ("C2", "C3", "C4", "C5")},
        "her2st_a1/ST-imgs/A1.jpg": 3.19,
    },
    "mob": {"mob/MOB1.jpg": 2.0, "mob/MOB2.jpg": 2.0},
    "xfuse": {"xfuse_mob_tiny/image.jpg": 3.0},
    "aperio": {"wsi/CMU-1-Small-Region.svs": 0.5},
    "visium": {"visium_muscle/Vis5A_2dpi/spatial/tissue_lowres_image.png": 13.0},
}
FLUORESCENCE = {"dapi": "merfish_mini/mini_dataset_dapi_z0.jpg", "polyT": "merfish_mini/mini_dataset_polyT_z0.jpg"}
_SIDE_PX = 1024


class _Picture:
    """An image as a slide."""

    def __init__(self, pixels: np.ndarray, mpp: float) -> None:
        self.pixels, self.mpp = pixels, mpp

    def thumbnail(self, max_px: int) -> tuple[np.ndarray, float]:
        return self.pixels, self.mpp


def measure(data: Path, draws: int = 20) -> dict[str, Any]:
    """Distances between slides.

    Args:
        data: folder of real slides.
        draws: restained copies of each.

    Returns:
        `own`: of restained slides from the other slides of their laboratory (or themselves, where it is alone), their
        quantiles; `foreign`: from those of each other laboratory; `other`: of images that are not H&E, from each
        laboratory's. And the shares of them above `STAIN_LIMIT`: `false_alarms_own`, `false_alarms`, `found`.
    """
    slides = {lab: [_read(data / path, mpp) for path, mpp in paths.items()] for lab, paths in LABORATORIES.items()}
    stains = {lab: [_stain(picture) for picture in pictures] for lab, pictures in slides.items()}
    own, foreign = [], []
    jitter = RandHEStain(prob=1.0)
    jitter.set_random_state(0)
    for lab, pictures in slides.items():
        for number, picture in enumerate(pictures):
            rest = [s for i, s in enumerate(stains[lab]) if i != number] or stains[lab]
            for _ in range(draws):
                restained = np.asarray(jitter(picture.pixels.transpose(2, 0, 1).astype(np.float32)))
                pixels = np.rint(restained).astype(np.uint8).transpose(1, 2, 0)
                stain = _stain(_Picture(np.ascontiguousarray(pixels), picture.mpp))
                own.append(stain_distance(stain, rest))
                foreign += [stain_distance(stain, known) for other, known in stains.items() if other != lab]
    other = {name: _stain(picture) for name, picture in _no_histology(data, slides)}
    far = {name: [stain_distance(s, known) for known in stains.values()] for name, s in other.items()}
    every = [d for distances in far.values() for d in distances]
    return {
        "own": _quantiles(own),
        "foreign": _quantiles(foreign),
        "other": {name: [round(d, 2) for d in distances] for name, distances in far.items()},
        "limit": STAIN_LIMIT,
        "false_alarms_own": _above(own),
        "false_alarms": _above(foreign),
        "found": _above(every),
    }


def _no_histology(data: Path, slides: Mapping[str, Sequence[_Picture]]) -> Iterator[tuple[str, _Picture]]:
    """Fluorescence as colour composites, and slides with dark and bright swapped."""
    dapi, poly_t = (
        np.asarray(Image.open(data / path).convert("L").resize((900, 800))) for path in FLUORESCENCE.values()
    )
    none = np.zeros_like(dapi)
    for name, channels in {
        "DAPI in blue": (none, none, dapi),
        "DAPI and polyT": (none, poly_t, dapi),
        "polyT in red, DAPI in blue": (poly_t, none, dapi),
    }.items():
        yield name, _Picture(np.stack(channels, axis=-1), 0.5)
    for lab in ("her2st", "mob", "visium"):
        yield f"{lab} inverted", _Picture(255 - slides[lab][0].pixels, slides[lab][0].mpp)
        yield f"{lab} inverted, dim", _Picture((255 - slides[lab][0].pixels) // 3, slides[lab][0].mpp)


def _read(path: Path, mpp: float) -> _Picture:
    if path.suffix == ".svs":
        with tifffile.TiffFile(path) as tiff:
            picture = Image.fromarray(tiff.pages.first.asarray())
    else:
        Image.MAX_IMAGE_PIXELS = None
        picture = Image.open(path)
    width = picture.width
    picture.draft("RGB", (_SIDE_PX, _SIDE_PX))
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    return _Picture(np.asarray(picture), mpp * width / picture.width)


def _stain(picture: Any) -> np.ndarray:
    return TissueMap(picture, TissueMask()).stain


def _above(distances: Sequence[float]) -> float:
    return round(float(np.mean(np.asarray(distances) > STAIN_LIMIT)), 4)


def _quantiles(distances: Sequence[float]) -> dict[str, float]:
    return {f"{q:g}": round(float(np.quantile(distances, q)), 3) for q in (0.5, 0.95, 0.99, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Distances between stains.")
    default = os.environ.get("PIXNET_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of real slides")
    parser.add_argument("--draws", type=int, default=20, help="restained copies of each slide")
    arguments = parser.parse_args()
    found = measure(arguments.data, arguments.draws)
    for name, distances in found["other"].items():
        print(f"{name}: {distances}")
    print(json.dumps({key: value for key, value in found.items() if key != "other"}))


if __name__ == "__main__":
    main()
