"""Tiled equals untiled on real tissue, what the margins cost, and how close reading is to bare cuCIM.

`python -m benchmarks.tiling [--section C5]`: a section of Her2ST (of PIXNET_DATA; a generated slide where it is
absent), the default network at its working mpp, so that the slide is resampled; its edges included.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.inference.tiles import default_tile_px, margin_px
from transforms import SlideReader

from .workload import arguments as options
from .workload import default_run, evaluator, finish, phantom_slide, prepared_section, row, workspace

__all__ = ["main"]


def _map(slide: Path, run: Path, work: Path, tile_px: int) -> tuple[np.ndarray, int, int]:
    """The features of the slide's tissue, and pixels computed and needed."""
    folder = work / f"tiles_{tile_px}"
    shutil.rmtree(folder, ignore_errors=True)  # or it would go on with what an earlier call kept
    _, parser = evaluator(slide, run, folder, map=str(folder / "m.zarr"), output=None, tile_px=tile_px)
    inferer, network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network").eval()
    counted: list[tuple[int, int]] = []
    maps = inferer.maps

    def counting(opened: Any, net: Any, tiles: Any, *args: Any) -> Any:
        counted.extend((t.region[2] * t.region[3], t.width_px * t.height_px) for t in tiles)
        return maps(opened, net, tiles, *args)

    inferer.maps = counting
    with torch.inference_mode():
        dense = inferer(parser.get_parsed_content("dataset")[0], network)
    return dense.array[:], sum(c for c, _ in counted), sum(n for _, n in counted)


def _read_ratio(slide: Path, tile_px: int, n: int) -> tuple[float, float]:
    """Tiles/s of our reader and of bare cuCIM, one thread each, on the same tiles at level 0."""
    from cucim import CuImage  # type: ignore[attr-defined]

    ours = SlideReader(("cucim",)).open(str(slide))
    bare = CuImage(str(slide))
    width, height = ours.level_dimensions[0]
    rng = np.random.default_rng(0)
    places = [(int(rng.integers(0, width - tile_px)), int(rng.integers(0, height - tile_px))) for _ in range(n)]
    rates: list[list[float]] = [[], []]
    for _ in range(5):
        started = time.perf_counter()
        for x, y in places:
            ours.read_region(x, y, tile_px, tile_px, ours.mpp)
        middle = time.perf_counter()
        for x, y in places:
            np.asarray(bare.read_region((x, y), (tile_px, tile_px), level=0))
        rates[0].append(n / (middle - started))
        rates[1].append(n / (time.perf_counter() - middle))
    return float(np.median(rates[0])), float(np.median(rates[1]))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it."""
    parser = options(__doc__)
    parser.add_argument("--section", default="C5")
    parser.add_argument("--tiles-px", type=int, nargs="+", default=[512, 1024, 2048])
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with workspace(args.work) as work:
        found = None if args.quick else prepared_section(work, args.section)
        slide = phantom_slide(work, 2000) if found is None else found[0]
        run = default_run(work)
        _, config = evaluator(slide, run, work)
        network, mpp = config.get_parsed_content("network"), config["mpp"]
        sizes = [256, 512] if args.quick else args.tiles_px
        untiled, *_ = _map(slide, run, work, 100_000)
        span = np.nanmax(untiled) - np.nanmin(untiled)
        print(
            f"{slide.name} at {mpp:g} µm/px, map {untiled.shape}, halo {network.halo_px} px, grid {network.grid_px} px"
        )
        row("tile, px", "largest diff", "of the range", "px computed/needed")
        worst = 0.0
        for size in sizes:
            tiled, computed, needed = _map(slide, run, work, size)
            both = np.isfinite(tiled) & np.isfinite(untiled)
            assert both.any()
            assert span > 1e-3
            diff = float(np.abs(tiled - untiled)[both].max())
            worst = max(worst, diff / float(span))
            row(size, f"{diff:.2e}", f"{diff / span:.2e}", computed / needed)
        spec = {"grid_px": network.grid_px, "halo_px": network.halo_px, "stride": network.stride}
        default = default_tile_px(**spec)
        overhead = ((default + 2 * margin_px(**spec)) / default) ** 2
        _, computed, needed = _map(slide, run, work, default)
        ours, bare = _read_ratio(slide, 1024 if not args.quick else 256, 40)
    print(
        f"default tile {default} px: {overhead:.3f} in the middle of a slide, {computed / needed:.3f} on this whole one"
    )
    print(f"reading 1024 px tiles: {ours:.1f} tiles/s, bare cuCIM {bare:.1f}")
    result = {
        "max_diff": worst,
        "halo_overhead": overhead,
        "halo_overhead_slide": computed / needed,
        "read_ratio": ours / bare,
    }
    finish(result)
    return result


if __name__ == "__main__":
    main()
