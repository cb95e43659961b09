"""Tiled equals untiled on real tissue; what the margins cost; how close reading is to bare cuCIM's batches.

`python -m benchmarks.tiling [--section C5]`: a section of Her2ST (of PIXNET_DATA; a generated slide where it is
absent), the default network at its working mpp, so that the slide is resampled; its edges included.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from bundle.inference.tiles import block_px, default_tile_px, margin_px
from transforms import SlideReader

from .workload import arguments as options
from .workload import default_run, evaluator, finish, phantom_slide, prepared_section, row, workspace

__all__ = ["main"]


def _map(slide: Path, run: Path, work: Path, tile_px: int) -> tuple[np.ndarray, int, int]:
    """The features of the slide's tissue, and the pixels computed and required; no required block may be missing."""
    folder = work / f"tiles_{tile_px}"
    shutil.rmtree(folder, ignore_errors=True)  # or it would go on with what an earlier call kept
    _, parser = evaluator(slide, run, folder, map=str(folder / "m.zarr"), output=None, tile_px=tile_px)
    inferer, network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network").eval()
    slide_sample = parser.get_parsed_content("dataset")[0]
    tiles = inferer.tiles(slide_sample, network)
    with torch.inference_mode():
        dense = inferer(slide_sample, network)
    features = dense.array[:]
    side_px = block_px(network.grid_px, network.stride)
    side, (x_px, y_px) = side_px // network.stride, dense.origin_px
    for row_number, column in inferer.blocks(slide_sample, network):
        top, left = row_number * side - y_px // network.stride, column * side - x_px // network.stride
        block = features[:, top : top + side, left : left + side]
        assert block.shape[1:] == (side, side)
        assert np.isfinite(block).all()
    computed, needed = (t.region[2] * t.region[3] for t in tiles), (t.width_px * t.height_px for t in tiles)
    return features, sum(computed), sum(needed)


def _read_rates(slide: Path, tile_px: int, n: int, workers: int) -> tuple[float, float]:
    """Tiles/s of our reader and of bare cuCIM's batch reads, as many threads each, on the same tiles at level 0."""
    from cucim import CuImage  # type: ignore[attr-defined]

    ours = SlideReader(("cucim",)).open(str(slide))
    bare = CuImage(str(slide))
    width, height = ours.level_dimensions[0]
    rng = np.random.default_rng(0)
    places = [(int(rng.integers(0, width - tile_px)), int(rng.integers(0, height - tile_px))) for _ in range(n)]
    size = (tile_px, tile_px)

    def read(place: tuple[int, int]) -> np.ndarray:
        return ours.read_region(place[0], place[1], tile_px, tile_px, ours.mpp)

    rates: tuple[list[float], list[float]] = ([], [])
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(5):
            started = time.perf_counter()
            for pixels in pool.map(read, places):
                assert pixels.shape[:2] == size
            middle = time.perf_counter()
            # a batch of one tile: the fastest here, of 1 and 8
            for pixels in bare.read_region(places, size, level=0, num_workers=workers, batch_size=1):
                assert np.asarray(pixels).shape[:2] == size
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
        read_px = 256 if args.quick else 1024
        rates = {workers: _read_rates(slide, read_px, 40, workers) for workers in (1, 2)}
    print(
        f"default tile {default} px: {overhead:.3f} in the middle of a slide, {computed / needed:.3f} on this whole one"
    )
    for workers, (ours, bare) in rates.items():
        print(f"reading {read_px} px tiles, workers: {workers}: {ours:.1f} tiles/s, bare cuCIM in batches {bare:.1f}")
    result = {
        "max_diff": worst,
        "halo_overhead": overhead,
        "halo_overhead_slide": computed / needed,
        "read_ratio": min(ours / bare for ours, bare in rates.values()),
    }
    finish(result)
    return result


if __name__ == "__main__":
    main()
